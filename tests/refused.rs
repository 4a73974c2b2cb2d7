//! Upgrades that can't succeed: the merchant stays where he was, and is told why, with the
//! evidence. Where it shows before the cut-over, his container was never touched.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use support::http::Request;
use support::operator::assert_refused;
use support::{Daemon, Fixture, OwnImage, SmallDisk, World, require, wait_until};

#[test]
fn a_tag_that_does_not_exist_refuses_the_plan_without_touching_the_container() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(100).start();
    let daemon = world.daemon();
    let before = Untouched::look(&world);

    let run = world.cli(&["run", "--to", "1.9.99", "--yes", "--json"]);

    assert_eq!(run.status.code(), Some(1), "{run:?}");
    let plan: Value = serde_json::from_slice(&run.stdout).expect("a plan");
    assert_eq!(plan["failureCode"], "IMAGE_NOT_FOUND", "{plan}");
    assert_said(&plan, &["the registry has no", "payramapp/payram:1.9.99"]);
    assert_eq!(daemon.status()["state"], "IDLE", "a refused plan makes no job");
    before.assert_untouched(&world);
}

#[test]
fn a_container_that_the_engine_refuses_to_create_is_rolled_back_without_touching_the_old_one() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(100).start();
    let daemon = world.daemon();
    let before = Untouched::look(&world);

    let run = world.cli(&["run", "--to", "9.0.10", "--yes"]);

    let status = assert_rolled_back(&daemon, &run, "DOCKER_RUN_BUILD_FAILED");
    assert_said(&status, &["create", "1.9.6 was never stopped"]);
    before.assert_untouched(&world);
}

#[test]
fn a_container_that_cannot_be_made_again_as_it_is_is_rolled_back_with_the_field_named() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(100).start();
    // A container without any network is one that this engine creates for no request: it
    // attaches the default one.
    world.docker(&["network", "disconnect", "bridge", &world.name]);
    world.set("CORE_BASE_URL", &format!("http://127.0.0.1:{}", hand_in(&world)));
    let daemon = world.daemon();
    let before = Untouched::look_without_network(&world);

    let run = world.cli(&["run", "--to", "1.9.7", "--yes"]);

    let status = assert_rolled_back(&daemon, &run, "SPEC_PARITY_FAILED");
    assert_said(&status, &["NetworkSettings.Networks[bridge]", "1.9.6 was never stopped"]);
    before.assert_untouched(&world);
}

#[test]
fn a_disk_that_is_too_small_for_the_backup_refuses_the_plan_and_says_by_how_much() {
    if !(require("docker") && require("root")) {
        return;
    }
    let world = World::start("1.9.6");
    let disk = SmallDisk::mount(world.backup_dir(), "64k");
    let daemon = world.daemon();
    let before = Untouched::look(&world);

    let dry = world.cli(&["dry-run", "--to", "1.9.7", "--json"]);
    let run = world.cli(&["run", "--to", "1.9.7", "--yes", "--json"]);

    for output in [dry, run] {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let plan: Value = serde_json::from_slice(&output.stdout).expect("a plan");
        assert_eq!(plan["failureCode"], "DISK_SPACE_LOW", "{plan}");
        let path = disk.path().display().to_string();
        assert_said(&plan, &[&path, "need 1.00 GB", "have 0.07 MB", "short by"]);
    }
    assert_eq!(daemon.status()["state"], "IDLE", "a refused plan makes no job");
    before.assert_untouched(&world);
}

#[test]
fn a_disk_that_fills_up_under_the_backup_is_rolled_back_and_leaves_no_half_a_dump() {
    if !(require("docker") && require("root")) {
        return;
    }
    let world = World::build("1.9.6").rows(5000).start();
    let disk = SmallDisk::mount(world.backup_dir(), "1200m");
    let daemon = world.daemon();
    let before = Untouched::look(&world);
    // The dump has begun but can't go on while this table is held; meanwhile the disk fills up.
    world.sql("CREATE TABLE held (id int); ALTER TABLE held OWNER TO payram");
    let held = HeldTable::hold(&world);
    let begun = world.cli(&["run", "--to", "1.9.7", "--yes", "--detach"]);
    assert_eq!(begun.status.code(), Some(0), "{begun:?}");
    held.wait_for_dump(&world);
    disk.resize("8k");
    held.release();

    let ended = world.cli(&["logs", "-f", "--until-done"]);

    let status = assert_rolled_back(&daemon, &ended, "DISK_SPACE_LOW");
    let path = disk.path().display().to_string();
    assert_said(&status, &[&path, "No space left on device", "1.9.6 was never stopped"]);
    let event = daemon.get("/history?type=backup&status=failed").json();
    assert_eq!(event["count"], 1, "{event}");
    assert_eq!(event["events"][0]["data"]["failureCode"], "DISK_SPACE_LOW", "{event}");
    let left = world.files_below("backups");
    assert!(left.is_empty(), "{:?}", left.iter().map(|(path, ..)| path).collect::<Vec<_>>());
    before.assert_untouched(&world);
}

#[test]
fn a_version_that_never_gets_healthy_is_rolled_back_to_the_old_one_which_serves() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(100).setting("HEALTH_TIMEOUT_SECONDS", "5").start();
    let daemon = world.daemon();
    let before = world.container().expect("the old container");

    let run = world.cli(&["run", "--to", "9.0.1", "--yes"]);

    let status = assert_rolled_back(&daemon, &run, "HEALTHCHECK_FAILED");
    assert_said(&status, &["did not stay good for 3 s within 5 s", "500", "1.9.6 serves again"]);
    assert_eq!(status["serving"], true, "{status}");
    assert_eq!(status["servingVersion"], "1.9.6", "{status}");
    let after = world.container().expect("the old container");
    assert_eq!((&after["Id"], &after["Name"]), (&before["Id"], &before["Name"]));
    assert_eq!(after["HostConfig"], before["HostConfig"], "the restart policy is set again");
    assert_eq!(world.containers().len(), 1, "the failed container is removed");
    assert_eq!(world.version().as_deref(), Some("1.9.6"));
    world.wait_for_payments(10);
    assert_eq!(world.lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_version_that_failed_is_refused_until_the_registry_has_another_image_under_its_tag() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(100).setting("HEALTH_TIMEOUT_SECONDS", "5").start();
    let tag = OwnTag::of("9.0.1");
    let releases = [tag.name.as_str(), "1.9.6"];
    world.write_policy(&json!({"latest": tag.name, "releases": releases}));
    let daemon = world.daemon();
    let plan = || daemon.post("/upgrade/plan", &json!({"requestedTarget": "latest"})).json();

    let run = world.cli(&["run", "--to", &tag.name, "--yes"]);
    assert_rolled_back(&daemon, &run, "HEALTHCHECK_FAILED");

    let refused = plan();
    assert_eq!(refused["failureCode"], "VERSION_QUARANTINED", "{refused:#}");
    let pulled = world.inspect(&tag.image).expect("the image that was pulled");
    // One image may have several manifests; it is the tag's that counts.
    let digest = refused["quarantined"][0]["digest"].as_str().expect("a digest");
    let noted = pulled["RepoDigests"].as_array().into_iter().flatten().filter_map(Value::as_str);
    assert!(noted.into_iter().any(|one| one.ends_with(digest)), "{digest}: {pulled:#}");
    assert_said(&refused, &["HEALTHCHECK_FAILED", "recover --clear-quarantine"]);
    assert!(refused["quarantined"][0].get("unsure").is_none(), "{refused:#}");

    tag.move_to("2.0.0");
    let offered = plan();
    assert_eq!(offered["state"], "READY", "{offered:#}");
    tag.move_to("9.0.1");
    assert_eq!(plan()["failureCode"], "VERSION_QUARANTINED", "the same image again");
    println!("{}: quarantined, moved away: offered, moved back: quarantined", tag.name);
    assert_eq!(world.lost(), Vec::<String>::new());
}

/// A tag in the fixture's registry that no other test knows.
struct OwnTag {
    name: String,
    image: String,
}

impl OwnTag {
    fn of(version: &str) -> Self {
        // The end of it is random.
        let (_, unique) = uuid::Uuid::now_v7().as_u64_pair();
        let name = format!("9.1.{}", unique & 0xffff_ffff);
        let tag = Self { image: Fixture::get().image(&name), name };
        tag.move_to(version);
        tag
    }

    /// The registry has this version's image under the tag from here on, and the engine none.
    fn move_to(&self, version: &str) {
        let image = Fixture::get().image(version);
        docker(&["pull", "--quiet", &image]);
        docker(&["tag", &image, &self.image]);
        docker(&["push", "--quiet", &self.image]);
        docker(&["image", "rm", &self.image]);
    }
}

impl Drop for OwnTag {
    fn drop(&mut self) {
        // A plan that was refused has pulled nothing.
        Command::new("docker").args(["image", "rm", &self.image]).output().ok();
    }
}

/// Listens on the host and hands each question on to the core from inside its container: the only
/// way to a container in no network.
fn hand_in(world: &World) -> u16 {
    const ASK: &str = "import socket, sys; s = socket.create_connection(('127.0.0.1', 80)); \
        s.sendall(sys.stdin.buffer.read()); \
        [sys.stdout.buffer.write(b) for b in iter(lambda: s.recv(4096), b'')]";
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let name = world.name.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let name = name.clone();
            std::thread::spawn(move || ask_inside(client, &name, ASK));
        }
    });
    port
}

/// One question, which comes in one piece, and its answer; a client that goes away has none.
fn ask_inside(mut client: TcpStream, container: &str, ask: &str) -> std::io::Result<()> {
    let mut question = vec![0; 4096];
    let length = client.read(&mut question)?;
    let mut asking = Command::new("docker")
        .args(["exec", "--interactive", container, "python3", "-c", ask])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = asking.stdin.take().expect("it is piped");
    stdin.write_all(question.get(..length).unwrap_or_default())?;
    drop(stdin);
    client.write_all(&asking.wait_with_output()?.stdout)
}

fn docker(args: &[&str]) {
    let output = Command::new("docker").args(args).output().expect("docker starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {args:?}: {error}");
}

/// Asserts that a command and the API agree on an upgrade that was rolled back; answers the
/// status.
fn assert_rolled_back(daemon: &Daemon, run: &Output, code: &str) -> Value {
    let output = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(4), "{output}{}", String::from_utf8_lossy(&run.stderr));
    assert!(output.contains(code), "{output}");
    let status = daemon.status();
    assert_eq!(status["state"], "FAILED", "{status}");
    assert_eq!(status["phase"], "ROLLED_BACK", "{status}");
    assert_eq!(status["failureCode"], code, "{status}");
    assert_eq!(status["recoveryPlaybook"]["code"], code, "{status}");
    let playbook = daemon.get("/upgrade/playbook").json();
    assert_eq!(playbook["failureCode"], code, "{playbook}");
    let history = daemon.get("/history?type=upgrade").json();
    assert_eq!(history["events"][0]["status"], "rolled_back", "{history}");
    assert_eq!(history["events"][0]["data"]["failureCode"], code, "{history}");
    assert_eq!(history["count"], 2, "started and rolled back, and no success: {history}");
    status
}

fn assert_said(answer: &Value, parts: &[&str]) {
    let message = answer["message"].as_str().expect("a message");
    for part in parts {
        assert!(message.contains(part), "{part:?} is said in: {message}");
    }
}

/// The container as it was, and a watch over whether it answers.
struct Untouched {
    container: Value,
    watch: Option<(mpsc::Sender<()>, JoinHandle<Vec<String>>)>,
}

impl Untouched {
    fn look(world: &World) -> Self {
        let (stop, stopped) = mpsc::channel();
        let port = world.port;
        let thread = std::thread::spawn(move || {
            let mut silent = Vec::new();
            while stopped.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout)
            {
                match Request::get("/api/v1/health").to_port(port) {
                    Ok(answer) if answer.status == 200 => {}
                    other => silent.push(format!("{other:?}")),
                }
            }
            silent
        });
        Self { watch: Some((stop, thread)), ..Self::look_without_network(world) }
    }

    fn look_without_network(world: &World) -> Self {
        Self { container: world.container().expect("a container"), watch: None }
    }

    /// The same container, never restarted, changed in nothing, answering all the time, taking
    /// payments and losing none; and no other one beside it.
    fn assert_untouched(self, world: &World) {
        world.wait_for_payments(10);
        if let Some((stop, thread)) = self.watch {
            drop(stop);
            assert_eq!(thread.join().expect("the watch ends"), Vec::<String>::new());
        }
        let now = world.container().expect("the container is there");
        for field in ["Id", "State", "RestartCount", "Config", "HostConfig"] {
            assert_eq!(now[field], self.container[field], "{field}");
        }
        assert_eq!(world.containers().len(), 1);
        assert_eq!(world.lost(), Vec::<String>::new());
        assert_eq!(world.two_at_once(), Vec::<String>::new());
    }
}

/// A session in the container that holds the table `held` for itself.
struct HeldTable {
    session: Child,
}

impl HeldTable {
    fn hold(world: &World) -> Self {
        let mut session = Command::new("docker")
            .args(["exec", "--interactive", "--user", "postgres", &world.name])
            .args(["psql", "-X", "-q", "-d", "payram"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("docker starts");
        let stdin = session.stdin.as_mut().expect("it is piped");
        stdin.write_all(b"BEGIN; LOCK TABLE held;\n").expect("a statement");
        stdin.flush().expect("a statement");
        let held = Self { session };
        wait_until("the table is held", Duration::from_secs(20), || {
            (count(world, "granted AND mode = 'AccessExclusiveLock'") > 0).then_some(())
        });
        held
    }

    fn wait_for_dump(&self, world: &World) {
        wait_until("the dump waits for the table", Duration::from_secs(60), || {
            (count(world, "NOT granted") > 0).then_some(())
        });
    }

    fn release(mut self) {
        drop(self.session.stdin.take());
        self.session.wait().expect("the session ends");
    }
}

fn count(world: &World, which: &str) -> u32 {
    let sql =
        format!("SELECT count(*) FROM pg_locks WHERE relation = 'held'::regclass AND {which}");
    world.sql(&sql).parse().expect("a count")
}

#[test]
fn a_database_that_would_go_with_its_container_is_refused_in_the_plan() {
    if !require("docker") {
        return;
    }
    let moved = "RUN sed -i 's#=/var/lib/payram/db/postgres$#=/var/lib/postgresql/inside#' \
                 $(grep -rl '^export PAYRAM_DATABASE_DIRECTORY=' /opt/payram /usr/local/bin)";
    let image = OwnImage::derived("1.9.6", moved, true);
    let world = World::build(&image.tag).rows(20).start();
    let daemon = world.daemon();
    assert_refused(
        &world,
        "1.9.8",
        "DATABASE_NOT_PERSISTENT",
        "directory",
        &["/var/lib/postgresql/inside", "lies on no mount"],
    );
    drop(daemon);
}
