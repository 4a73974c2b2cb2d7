//! Deployments as they are: who else manages the container, which image it runs, what the registry
//! says of the next one, and what will be another way afterwards. Refused before anything is
//! touched, or told and upgraded rightly; on a real engine.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::operator::{assert_parts, assert_refused, check, identity, inspection, plan, upgrade};
use support::sandbox::{Sandbox, scenario, updater, write_scenario};
use support::{Daemon, Fixture, World, free_port, require, wait_until};

/// A name that nothing else has.
fn unique(what: &str) -> String {
    format!("payram-test-{what}-{}", uuid::Uuid::now_v7().simple())
}

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().expect("docker starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {args:?}: {error}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A file of this host, until the test ends.
struct HostFile(PathBuf);

impl HostFile {
    fn write(path: impl Into<PathBuf>, text: &str) -> Self {
        let path = path.into();
        fs::create_dir_all(path.parent().expect("a place")).expect("a directory");
        fs::write(&path, text).expect("a file");
        Self(path)
    }
}

impl Drop for HostFile {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// A process of this host, until the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A container that only sleeps: its plan is refused before anybody asks it anything.
struct Sleeper(String);

impl Sleeper {
    fn run(args: &[&str], image: &str) -> Self {
        let name = unique("sleeper");
        let begin = ["run", "--detach", "--name", &name];
        let end = ["--entrypoint", "sleep", image, "600"];
        docker(&[&begin[..], args, &end[..]].concat());
        Self(name)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        Command::new("docker").args(["rm", "--force", &self.0]).output().ok();
    }
}

/// An image of this engine, until the test ends.
struct Image(String);

impl Drop for Image {
    fn drop(&mut self) {
        Command::new("docker").args(["image", "rm", &self.0]).output().ok();
    }
}

/// The plan for a container that sleeps, made by a daemon of its own.
fn plan_of(world: &World, sleeper: &Sleeper) -> Value {
    world.set("TARGET_CONTAINER_NAME", &sleeper.0);
    let daemon = world.daemon();
    let (code, found) = plan(world, "1.9.7");
    assert_eq!(code, Some(1), "{found:#}");
    assert!(daemon.terminate().success());
    found
}

/// Asserts which code, and what its sentence says.
fn refuses(found: &Value, code: &str, parts: &[&str]) {
    assert_eq!(found["failureCode"], code, "{found:#}");
    let message = found["message"].as_str().expect("a sentence");
    println!("{code}: {message}");
    assert_parts(message, parts);
}

#[test]
fn an_ordinary_shop_hears_of_nobody_and_one_that_is_owned_is_refused_until_it_is_handed_over() {
    if !require("docker") || !require("root") {
        return;
    }
    let world = World::build("1.9.6").rows(50).start();
    let name = world.name.as_str();
    let _daemon = world.daemon();
    let (code, ready) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{ready:#}");
    for absent in ["owners", "afterwards"] {
        assert_eq!(ready[absent], Value::Null, "{ready:#}");
    }
    for name in ["owners", "image", "origin", "ports", "postgres"] {
        let (passed, said) = check(&ready, name);
        assert!(passed, "{ready:#}");
        println!("{name}: {said}");
    }
    let kept = ready["environment"]["kept"].to_string();
    assert!(kept.contains("AES_KEY") && !ready.to_string().contains("correct-horse"), "{kept}");
    let inspected = inspection(&world);
    assert_eq!(inspected["checks"]["owners"]["status"], "OK", "{inspected:#}");

    let runs = format!("[Service]\nExecStart=/usr/bin/docker run --rm --name {name} x:latest\n");
    let holds = format!(
        "[Service]\nRestart=always\nEnvironment=SHOP={name}\nExecStart=/usr/bin/docker start -a $SHOP\n"
    );
    let unit = format!("{}.service", unique("unit"));
    for (place, text) in [
        (format!("/etc/systemd/system/{unit}"), &runs),
        (format!("/root/.config/systemd/user/{unit}"), &holds),
    ] {
        let _unit = HostFile::write(&place, text);
        let parts = [unit.as_str(), place.as_str()];
        assert_refused(&world, "1.9.7", "CONTAINER_OWNED", "owners", &parts);
        let (_, refused) = plan(&world, "1.9.7");
        let owner = &refused["owners"][0];
        assert_eq!((&owner["kind"], &owner["refuses"]), (&"systemd".into(), &true.into()));
        assert!(owner["handOver"].to_string().contains("disable --now"), "{owner:#}");
        let inspected = inspection(&world);
        assert_eq!(inspected["overallState"], "DEGRADED", "{inspected:#}");
        assert!(inspected["checks"]["owners"]["message"].to_string().contains(&unit));
    }

    let text = format!("while sleep 1000; do docker run --rm --name {name} x; done");
    let looping = Command::new("sh").args(["-c", &text]).stdin(Stdio::null()).spawn();
    let looping = Process(looping.expect("a shell"));
    let pid = looping.0.id().to_string();
    assert_refused(&world, "1.9.7", "CONTAINER_OWNED", "owners", &[&pid, "again and again"]);
    drop(looping);

    let table = format!("/etc/cron.d/{}", unique("cron"));
    let script = HostFile::write(world.path("up.sh"), &format!("docker start {name}\n"));
    let line = format!("*/5 * * * * root {}\n", script.0.display());
    let cron = HostFile::write(&table, &line);
    assert_refused(&world, "1.9.7", "CONTAINER_OWNED", "owners", &[&table]);
    drop(cron);

    let (code, ready) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "handed over: {ready:#}");
    assert_refused(&world, "1.9.99", "IMAGE_NOT_FOUND", "image", &["payramapp/payram:1.9.99"]);

    // Another PostgreSQL, which only the pulled image tells.
    let before = identity(&world);
    drop(_daemon);
    world.set("IMAGE_REPO_OVERRIDE", Fixture::get().repo_17());
    let daemon = world.daemon();
    let run = upgrade(&world, "1.9.7");
    let status = daemon.status();
    assert_eq!(run.status.code(), Some(4), "{status:#}");
    refuses(&status, "POSTGRES_MAJOR_CHANGE", &["PostgreSQL 15", "PostgreSQL 17", "never stopped"]);
    assert_eq!(identity(&world), before);
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn schedulers_own_builds_moved_tags_and_wrong_names_are_told_in_the_plan() {
    if !require("docker") || !require("root") {
        return;
    }
    let world = World::build("1.9.6").unattended().start();
    let stock = world.image("1.9.6");
    for (args, parts) in [
        (&["--label", "com.docker.swarm.service.name=shop_payram"][..], "docker service update"),
        (&["--label", "io.kubernetes.pod.name=payram-0"], "kubectl"),
        (&["--rm"], "--rm"),
    ] {
        let found = plan_of(&world, &Sleeper::run(args, &stock));
        refuses(&found, "CONTAINER_OWNED", &[]);
        assert!(found["owners"][0].to_string().contains(parts), "{found:#}");
    }

    let own = Image(format!("{}:1.9.6", unique("own")));
    let text = format!("FROM {stock}\nRUN touch /opt/payram/theme\n");
    let mut build = Command::new("docker")
        .args(["build", "--quiet", "--network", "none", "--tag", &own.0, "-"])
        .env("DOCKER_BUILDKIT", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("docker starts");
    build.stdin.take().expect("piped").write_all(text.as_bytes()).expect("a Dockerfile");
    assert!(build.wait().expect("it ends").success());
    let built = Sleeper::run(&[], &own.0);
    let found = plan_of(&world, &built);
    let (passed, why) = check(&found, "origin");
    println!("IMAGE_DERIVED: {why}");
    assert!(!passed && why.contains("a layer of its own"), "{found:#}");
    assert_parts(why, &["IMAGE_REPO_OVERRIDE", "--force"]);
    drop(built);

    let tag = Image(world.image("1.9.6-arm64"));
    docker(&["tag", &stock, &tag.0]);
    let moved = Sleeper::run(&[], &tag.0);
    drop(tag);
    let found = plan_of(&world, &moved);
    assert_parts(&found["route"].to_string(), &["payramapp/payram:1.9.7-arm64"]);
    let (passed, why) = check(&found, "image");
    assert!(!passed && why.contains("1.9.7-arm64"), "{found:#}");

    let manifest = serde_json::json!({
        "image": {"repo": Fixture::get().repo()}, "defaults": {"container_name": unique("nobody")},
    });
    world.write_manifest(&manifest);
    world.unset("TARGET_CONTAINER_NAME");
    let _daemon = world.daemon();
    let (_, found) = plan(&world, "1.9.7");
    // Which ones are named depends on who else uses this engine.
    let parts = ["here are: payram-test-", "Set TARGET_CONTAINER_NAME"];
    refuses(&found, "CONTAINER_NOT_FOUND", &parts);
    let advice = inspection(&world)["recommendations"][0].to_string();
    assert_parts(&advice, &["TARGET_CONTAINER_NAME"]);
}

/// A proxy of the environment, which answers for a host that does not exist, and what it was asked.
fn proxy(policy: String) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    // Ends with the test's process.
    thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut request = [0; 4096];
            let read = client.read(&mut request).unwrap_or(0);
            let text = String::from_utf8_lossy(&request[..read]).into_owned();
            notes.lock().expect("not poisoned").push(text);
            let length = policy.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            client.write_all((head + &policy).as_bytes()).ok();
        }
    });
    (port, asked)
}

/// On the make-believe engine: nothing of it needs a real one.
#[test]
fn the_environments_proxy_is_used_for_what_is_outside_of_this_host_and_named_when_it_fails() {
    let directory = tempfile::tempdir().expect("a directory");
    write_scenario(directory.path(), &scenario(0, &serde_json::json!({"1.9.7": {}})));
    let sandbox = Sandbox::start(directory.path());
    let mut settings = sandbox.settings(directory.path(), free_port());
    let policy = fs::read_to_string(&settings["POLICY_URL"]).expect("the policy");
    let (port, asked) = proxy(policy);
    settings.insert("POLICY_URL".into(), "http://policy.invalid/p.json".into());
    let plan = |proxy_port: u16| {
        let through = format!("http://me:hunter2@127.0.0.1:{proxy_port}");
        let log = directory.path().join("daemon.log");
        let mut daemon = updater(directory.path());
        daemon.arg("serve").envs(&settings).env("HTTP_PROXY", through);
        let port = settings["UPDATER_PORT"].parse().expect("a port");
        let mut daemon = Daemon::spawn(daemon, port, &log);
        daemon.wait_ready();
        let mut command = updater(directory.path());
        command.args(["dry-run", "--to", "1.9.7", "--mode", "dashboard", "--json"]);
        let output = command.envs(&settings).output().expect("the product starts");
        assert!(daemon.terminate().success());
        let log = fs::read_to_string(log).unwrap_or_default();
        let said = support::operator::said(&output);
        assert!(!said.contains("hunter2") && !log.contains("hunter2"), "{said}\n{log}");
        serde_json::from_str::<Value>(&said).expect("a plan")
    };
    assert_eq!(plan(port)["state"], "READY");
    let all = asked.lock().expect("not poisoned").join("");
    assert!(all.starts_with("GET http://policy.invalid/p.json "), "{all}");
    assert!(!all.contains("127.0.0.1:") || !all.contains("/v2/"), "loopback goes nowhere: {all}");
    let refused = plan(free_port());
    refuses(&refused, "POLICY_FETCH_FAILED", &["through the environment's proxy http://127.0.0.1"]);
}

/// A registry that wants a name and a password, in front of the fixture's.
struct Guarded(String);

impl Guarded {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        // Ends with the test's process.
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                thread::spawn(move || guard(client));
            }
        });
        Self(format!("{address}/payramapp/payram"))
    }

    /// Docker's configuration with a login for it.
    fn config(&self, directory: &Path, auth: &str) {
        let host = self.0.split('/').next().expect("a host");
        let text = format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#);
        fs::create_dir_all(directory).expect("a directory");
        fs::write(directory.join("config.json"), text).expect("a configuration");
    }
}

/// `printf 'me:hunter2-secret' | base64`
const GOOD: &str = "bWU6aHVudGVyMi1zZWNyZXQ=";

/// One request at a time: each connection is asked for the login, then passed on whole.
fn guard(mut client: TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let authorized =
        text.to_ascii_lowercase().contains("authorization: basic ") && text.contains(GOOD);
    if !authorized {
        let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"shop\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        client.write_all(refusal.as_bytes()).ok();
        return;
    }
    let Ok(mut server) = TcpStream::connect(Fixture::get().registry()) else { return };
    let once = text.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    if server.write_all(once.as_bytes()).is_ok() {
        std::io::copy(&mut server, &mut client).ok();
    }
}

#[test]
fn a_composed_shop_behind_a_login_is_upgraded_and_told_what_to_do_afterwards() {
    if !require("docker") || !require("root") {
        return;
    }
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("docker-compose.yml");
    let old = Fixture::get().image("1.9.6");
    fs::write(&file, format!("services:\n  payram:\n    image: {old}\n")).expect("a file");
    let labels = [
        "com.docker.compose.project=shop".to_owned(),
        "com.docker.compose.service=payram".to_owned(),
        format!("com.docker.compose.project.working_dir={}", home.path().display()),
        format!("com.docker.compose.project.config_files={}", file.display()),
    ];
    let labels = labels.iter().flat_map(|label| ["--label", label.as_str()]);
    let registry = Guarded::start();
    let world = World::build("1.9.6")
        .unpublished()
        .run_args(labels)
        .run_args(["--publish", "127.0.0.1::80"])
        .setting("IMAGE_REPO_OVERRIDE", &registry.0)
        .rows(50)
        .start();
    let side = unique("side");
    let network = format!("container:{}", world.name);
    docker(&["create", "--name", &side, "--network", &network, &old]);
    let _side = Sleeper(side.clone());
    let config = world.path("docker");
    let set = config.display().to_string();
    world.set("DOCKER_CONFIG", &set);

    let daemon = world.daemon();
    assert_refused(&world, "1.9.7", "REGISTRY_LOGIN", "image", &["docker login"]);
    registry.config(&config, "bWU6d3Jvbmc=");
    assert_refused(&world, "1.9.7", "REGISTRY_LOGIN", "image", &["the login of me"]);
    registry.config(&config, GOOD);
    let (code, ready) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{ready:#}");
    println!("image: {}", check(&ready, "image").1);
    for (name, part) in [("ports", "the engine chose"), ("sidecars", side.as_str())] {
        let said = check(&ready, name).1;
        println!("{name}: {said}");
        assert!(said.contains(part), "{said}");
    }
    let owner = &ready["owners"][0];
    println!("owners: {}", owner["message"]);
    assert_eq!((&owner["kind"], &owner["refuses"]), (&"compose".into(), &false.into()));
    assert_parts(&owner["handOver"].to_string(), &["sed -i '3s|", &file.display().to_string()]);

    let run = upgrade(&world, "1.9.7");
    let said = support::operator::said(&run);
    assert_eq!(run.status.code(), Some(0), "{said}\n{}", daemon.log());
    for part in ["docker port", &format!("docker rm --force {side}"), "sudo sed -i '3s|"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(daemon.status()["afterwards"].as_array().map(Vec::len), Some(3));
    for text in [said, daemon.log(), world.upgrade_log()] {
        assert!(!text.contains("hunter2-secret") && !text.contains(GOOD), "{text}");
    }
    wait_until("1.9.7 serves", Duration::from_secs(60), || {
        (world.version().as_deref() == Some("1.9.7")).then_some(())
    });
    assert_eq!(world.payments_lost(), Vec::<String>::new());

    // Until the file follows, the next `up` would put the old image back.
    let inspected = inspection(&world);
    assert_eq!(inspected["checks"]["owners"]["status"], "WARNING", "{inspected:#}");
    let owners = inspected["checks"]["owners"]["message"].to_string();
    assert_parts(&owners, &["1.9.7 has changed", "docker-compose.yml line 3"]);
    let new = format!("services:\n  payram:\n    image: {}:1.9.7\n", registry.0);
    fs::write(&file, new).expect("a file");
    let inspected = inspection(&world);
    assert_eq!(inspected["checks"]["owners"]["status"], "OK", "{inspected:#}");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
    Command::new("docker").args(["image", "rm", &format!("{}:1.9.7", registry.0)]).output().ok();
}
