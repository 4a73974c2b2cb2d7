//! What the make-believe engine plays, asked by the product's own client: processes, events,
//! files, the identity of the database, and each kind of release that goes wrong.

use std::fs;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use payram_updater::engine::docker::Docker;
use payram_updater::engine::{Change, ChangeKind, Engine, ExecRequest, Frame, Process};
use serde_json::{Value, json};

use crate::shop::{SOON, Shop};
use crate::support::http::Request;

const EXPECTED_PROCESSES: [&str; 5] = [
    "/opt/payram/payram-core",
    "/opt/payram/payram-webhooks",
    "/opt/payram/payram-worker",
    "/usr/bin/python3 /usr/bin/supervisord -n",
    "/usr/lib/postgresql/15/bin/postgres -D /var/lib/payram/db/postgres",
];

/// A shop whose running release is of this kind, once its container is up.
fn shop_of(release: Value) -> (Shop, Docker) {
    let mut release = release;
    release.as_object_mut().expect("an object").entry("bootMs").or_insert(json!(50));
    let shop = Shop::open(json!({"1.9.6": release, "2.0.0": {}}));
    let docker = docker_of(&shop);
    (shop, docker)
}

fn docker_of(shop: &Shop) -> Docker {
    Docker::at(&format!("unix://{}", shop.path("docker.sock").display())).expect("a client")
}

/// Polls until there is something.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let polled = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, polled).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// What a command prints in the container, and its exit code.
async fn run(docker: &Docker, container: &str, argv: &[&str]) -> (i64, String) {
    let request = ExecRequest {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        env: Vec::new(),
        user: None,
        stdin: false,
    };
    let mut exec = docker.exec(container, request).await.expect("begun");
    let mut out = Vec::new();
    while let Some(frame) = exec.output.next().await {
        match frame.expect("a frame") {
            Frame::Stdout(bytes) | Frame::Stderr(bytes) => out.extend(bytes),
        }
    }
    let code = docker.exec_exit_code(&exec.id).await.expect("asked").expect("ended");
    (code, String::from_utf8(out).expect("text"))
}

async fn supervisorctl(docker: &Docker, arguments: &[&str]) -> (i64, String) {
    run(docker, "payram", &[&["supervisorctl"], arguments].concat()).await
}

/// The line of one program.
async fn status(docker: &Docker, program: &str) -> String {
    let (_, said) = supervisorctl(docker, &["status"]).await;
    let line = said.lines().find(|line| line.starts_with(program)).map(str::to_owned);
    line.unwrap_or_else(|| panic!("no {program} in {said}"))
}

async fn identity(docker: &Docker, container: &str) -> Value {
    let statement = "select json_build_object('a', s) from pg_control_system() s";
    let argv = ["sh", "-c", "tool", "sh", "psql", "15", "-c", statement];
    let (code, said) = run(docker, container, &argv).await;
    assert_eq!(code, 0, "{said}");
    serde_json::from_str(&said).expect("one object")
}

/// `0/3000060` as a number.
fn position(identity: &Value) -> u64 {
    let text = identity["walPosition"].as_str().expect("a position");
    let (high, low) = text.split_once('/').expect("two parts");
    let part = |text| u64::from_str_radix(text, 16).expect("hex");
    part(high) << 32 | part(low)
}

async fn process(docker: &Docker, name: &str) -> Option<Process> {
    let processes = docker.processes("payram").await.expect("processes");
    processes.into_iter().find(|process| process.command.ends_with(name))
}

fn payments(shop: &Shop) -> usize {
    fs::read_to_string(shop.data().join("payments.jsonl")).expect("the payments").lines().count()
}

#[tokio::test]
async fn a_program_keeps_its_number_until_it_is_started_again() {
    let (shop, docker) = shop_of(json!({}));
    shop.wait_serves("1.9.6");
    let mut commands: Vec<String> = docker
        .processes("payram")
        .await
        .expect("processes")
        .into_iter()
        .map(|process| process.command)
        .filter(|command| !command.starts_with("postgres: "))
        .collect();
    commands.sort();
    assert_eq!(commands, EXPECTED_PROCESSES);
    let core = process(&docker, "core").await.expect("the core");
    let supervisor = shop.ask("/containers/payram/json")["State"]["Pid"].clone();
    assert_eq!(json!(core.parent), supervisor);
    let before = status(&docker, "payram-core").await;
    assert!(before.contains(" RUNNING   pid ") && before.contains(", uptime 0:00:0"), "{before}");

    let (code, said) = supervisorctl(&docker, &["stop", "payram-core", "payram-worker"]).await;
    assert_eq!((code, said.as_str()), (0, "payram-core: stopped\npayram-worker: stopped\n"));
    let again = supervisorctl(&docker, &["stop", "payram-core"]).await;
    assert_eq!(again, (0, "payram-core: ERROR (not running)\n".to_owned()));
    let (code, _) = supervisorctl(&docker, &["status"]).await;
    assert_eq!(code, 3, "some program does not run");
    assert_eq!(process(&docker, "core").await, None);
    assert_eq!(identity(&docker, "payram").await["sessions"], 0);

    let (_, said) = supervisorctl(&docker, &["start", "payram-core"]).await;
    assert_eq!(said, "payram-core: started\n");
    let core_again = process(&docker, "core").await.expect("the core");
    assert_ne!(core_again.pid, core.pid);
    let after = status(&docker, "payram-core").await;
    let number =
        |line: &str| line.split("pid ").nth(1).map(|it| it.split(',').next().map(str::to_owned));
    assert_ne!(number(&after), number(&before));
    let database = process(&docker, "db/postgres").await.expect("the server");
    let (_, _) = supervisorctl(&docker, &["start", "payram-worker"]).await;
    assert_eq!(process(&docker, "db/postgres").await.map(|it| it.pid), Some(database.pid));
}

#[tokio::test]
async fn the_database_says_which_one_it_is_and_goes_on_after_a_stop() {
    let (mut shop, docker) = shop_of(json!({}));
    shop.wait_serves("1.9.6");
    let first = identity(&docker, "payram").await;
    assert_eq!((&first["timeline"], &first["databaseOid"]), (&json!(1), &json!(16384)));
    assert!(first["sessions"].as_u64() >= Some(1), "{first}");
    let wal = shop.data().join("pg_wal").join(first["walFile"].as_str().expect("a file"));
    assert!(wal.exists(), "{}", wal.display());
    let later = until("the log grows", async || {
        let later = identity(&docker, "payram").await;
        (position(&later) > position(&first)).then_some(later)
    })
    .await;

    docker.stop("payram", None).await.expect("stopped");
    let control = fs::read(shop.data().join("global/pg_control")).expect("a control file");
    let number = |at: usize| u64::from_le_bytes(control[at..at + 8].try_into().expect("eight"));
    assert_eq!(json!(number(0).to_string()), first["systemIdentifier"]);
    assert_eq!(u32::from_le_bytes(control[16..20].try_into().expect("four")), 1, "shut down");
    assert!(number(32) >= position(&later));
    docker.start("payram").await.expect("started");
    let again = identity(&docker, "payram").await;
    assert_eq!(again["systemIdentifier"], first["systemIdentifier"]);
    assert!(position(&again) > position(&later));
    let control = fs::read(shop.data().join("global/pg_control")).expect("a control file");
    assert_eq!(u32::from_le_bytes(control[16..20].try_into().expect("four")), 6, "in production");

    // Killed with everything that runs in it.
    shop.restart_engine();
    let docker = docker_of(&shop);
    let after_kill = identity(&docker, "payram").await;
    assert_eq!(after_kill["systemIdentifier"], first["systemIdentifier"]);
    assert!(position(&after_kill) > position(&again));
}

#[tokio::test]
async fn a_release_that_serves_elsewhere_has_another_identity_and_leaves_the_directory_alone() {
    let (shop, docker) = shop_of(json!({"servesElsewhere": true}));
    shop.wait_serves("1.9.6");
    let (other, shop_of_it) = (identity(&docker, "payram").await, shop.data());
    assert!(other["systemIdentifier"].is_string());
    assert!(!shop_of_it.join("PG_VERSION").exists(), "{}", shop_of_it.display());
}

#[tokio::test]
async fn the_events_of_a_stop_a_restart_and_a_kill_are_those_of_the_real_engine() {
    let (shop, docker) = shop_of(json!({}));
    shop.wait_serves("1.9.6");
    let id = shop.id();
    docker.stop(&id, None).await.expect("stopped");
    docker.start(&id).await.expect("started");
    shop.tell("/containers/payram/restart?t=5");
    let pid = process(&docker, "core").await.expect("it runs again").pid;
    docker.kill(&id).await.expect("killed");
    docker.kill(&id).await.expect("it does not run, which is fine");
    let refused =
        Request::post("/containers/payram/kill", "{}").to_socket(&shop.path("docker.sock"));
    assert_eq!(refused.expect("an answer").status, 409);
    docker.start(&id).await.expect("started");
    assert_ne!(process(&docker, "core").await.expect("it runs").pid, pid);
    let now = time_ms();
    let events = docker.events_between(&id, 0, now).await.expect("events");
    let actions: Vec<&str> = events
        .iter()
        .map(|event| event.action.as_str())
        .filter(|action| !action.starts_with("exec_") && *action != "top")
        .collect();
    let expected = [
        "create", "start", "kill", "die", "stop", "start", "kill", "die", "stop", "start",
        "restart", "kill", "die", "start",
    ];
    assert_eq!(actions, expected);
    let of = |action: &str, key: &str| -> Vec<String> {
        let those = events.iter().filter(|event| event.action == action);
        those.map(|event| event.attributes[key].clone()).collect()
    };
    assert_eq!(of("kill", "signal"), ["15", "15", "9"]);
    assert_eq!(of("die", "exitCode"), ["0", "0", "137"]);
    let last = events.last().expect("an event").at_ms;
    assert_eq!(docker.events_between(&id, last + 1, now.max(last + 1)).await.expect("none"), []);
    assert!(shop.data().join("postmaster.pid").exists(), "it runs");
}

fn time_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.expect("after the epoch").as_millis()).expect("some centuries")
}

#[tokio::test]
async fn a_core_that_dies_is_started_again_with_another_number_and_at_last_given_up() {
    let (_shop, docker) = shop_of(json!({"coreDiesEveryMs": 1100, "coreExitCode": 0}));
    let first = until("a core", async || process(&docker, "core").await).await;
    until("another one", async || {
        process(&docker, "core").await.filter(|core| core.pid != first.pid)
    })
    .await;
    let restarts = docker.inspect_container("payram").await.expect("asked").expect("there");
    assert_eq!(restarts["RestartCount"], 0, "the container itself lives on");

    let (_shop, docker) = shop_of(json!({"coreDiesEveryMs": 100}));
    until("it is given up", async || {
        let line = status(&docker, "payram-core").await;
        line.ends_with("FATAL     Exited too quickly (process log may have details)").then_some(())
    })
    .await;
}

#[tokio::test]
async fn workers_write_rows_while_the_core_is_broken_until_they_are_stopped() {
    for broken in [
        json!({"hangs": true}),
        json!({"health": [500]}),
        json!({"migration": {"schema": true, "fails": true}}),
    ] {
        let mut release = broken.clone();
        release["takesPayments"] = json!(false);
        release["writesRows"] = json!(true);
        let (shop, docker) = shop_of(release);
        let before = payments(&shop);
        until("rows", async || (payments(&shop) > before + 2).then_some(())).await;
        supervisorctl(&docker, &["stop", "payram-core", "payram-worker"]).await;
        let stopped = payments(&shop);
        // Six payments' time.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(payments(&shop), stopped, "{broken}");
        assert_eq!(shop.lost(), Vec::<String>::new(), "{broken}");
    }
}

#[tokio::test]
async fn a_bystander_that_is_given_up_stays_so_and_a_restless_program_comes_back() {
    let (_shop, docker) = shop_of(json!({"bystanderFatal": true, "restlessProgram": 150}));
    let fatal = status(&docker, "payram-webhooks").await;
    assert!(fatal.contains(" FATAL     Exited too quickly"), "{fatal}");
    let started = supervisorctl(&docker, &["start", "payram-webhooks"]).await;
    assert_eq!(started, (7, "payram-webhooks: ERROR (spawn error)\n".to_owned()));
    let first = until("a worker", async || process(&docker, "worker").await).await;
    until("its end", async || {
        let line = status(&docker, "payram-worker").await;
        line.contains(" EXITED    ").then_some(())
    })
    .await;
    until("it is back", async || {
        process(&docker, "worker").await.filter(|worker| worker.pid != first.pid)
    })
    .await;
}

#[tokio::test]
async fn a_slow_answer_comes_later_than_an_impatient_client_waits() {
    let (shop, _docker) = shop_of(json!({"answerMs": 1500}));
    shop.wait_serves("1.9.6");
    let core = shop.ready["core"].as_str().expect("an address");
    let port = core.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let asked = |patience| Request::get("/api/v1/version").patience(patience).to_port(port);
    assert!(asked(Duration::from_millis(300)).is_err());
    assert_eq!(asked(SOON).expect("an answer").status, 200);
}

#[tokio::test]
async fn a_lock_file_that_was_left_keeps_the_next_releases_server_from_starting() {
    let (shop, docker) = shop_of(json!({"leavesStalePid": true}));
    shop.wait_serves("1.9.6");
    docker.stop("payram", None).await.expect("stopped");
    let lock = shop.data().join("postmaster.pid");
    assert!(lock.exists());
    let repo = shop.ready["repo"].as_str().expect("a repository").to_owned();
    docker.pull(&repo, "2.0.0", &mut |_| {}).await.expect("pulled");
    let old = docker.inspect_container("payram").await.expect("asked").expect("there");
    let spec = json!({"Image": format!("{repo}:2.0.0"), "HostConfig": old["HostConfig"]});
    docker.rename("payram", "payram-previous").await.expect("renamed");
    docker.create_container("payram", &spec).await.expect("created");
    docker.start("payram").await.expect("started");
    let server = status(&docker, "postgres").await;
    assert!(server.contains("FATAL"), "{server}");
    let log = docker.logs("payram", 20).await.expect("a log");
    assert!(log.contains("lock file \"postmaster.pid\" already exists"), "{log}");

    docker.stop("payram", None).await.expect("stopped");
    fs::rename(&lock, lock.with_extension("aside")).expect("moved");
    docker.start("payram").await.expect("started");
    assert!(status(&docker, "postgres").await.contains("RUNNING"));
    shop.wait_serves("2.0.0");
}

#[tokio::test]
async fn files_mounts_and_volumes_are_told() {
    let changes = json!({"/opt/payram": "modified", "/opt/payram/logo.png": "added"});
    let (shop, docker) = shop_of(json!({"changes": changes}));
    let changed = docker.changes("payram").await.expect("changes");
    let expected = [
        Change { path: "/opt/payram".into(), kind: ChangeKind::Modified },
        Change { path: "/opt/payram/logo.png".into(), kind: ChangeKind::Added },
    ];
    assert_eq!(changed, expected);
    for path in ["/opt/payram/logo.png", "/var/lib/payram/db/postgres/PG_VERSION"] {
        let stream = docker.archive("payram", path).await.expect("an archive");
        let tar = stream.try_collect::<Vec<_>>().await.expect("all of it").concat();
        let name = path.rsplit('/').next().expect("a name");
        assert!(tar.starts_with(name.as_bytes()), "{path}");
    }
    let error = docker.archive("payram", "/etc/passwd").await.err().expect("not there");
    assert_eq!(error.status(), Some(404));

    let repo = shop.ready["repo"].as_str().expect("a repository").to_owned();
    assert_eq!(docker.inspect_volume("shop-data").await.expect("asked"), None);
    let spec =
        json!({"Image": format!("{repo}:1.9.6"), "HostConfig": {"Binds": ["shop-data:/data"]}});
    docker.create_container("other", &spec).await.expect("created");
    let volume = docker.inspect_volume("shop-data").await.expect("asked").expect("there");
    let listed = docker.containers(None).await.expect("listed");
    let other = listed.iter().find(|one| one.name == "other").expect("there");
    assert_eq!(other.mounts[0].name.as_deref(), Some("shop-data"));
    assert_eq!(json!(other.mounts[0].source), volume["Mountpoint"]);
    assert_eq!(docker.changes("other").await.expect("changes"), [], "it was never started");
}
