//! What can't be seen is not upgraded, and what can be seen from anywhere on this host is: a core
//! behind a proxy on no published port, beside a published database, in another container's
//! network, slow in every answer, or nowhere at all (I15).

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Fixture, World, free_port, in_long_run, require};

/// What PostgreSQL says of whoever speaks HTTP or TLS to it.
const DISTURBED: [&str; 3] =
    ["invalid length of startup packet", "unsupported frontend protocol", "could not accept SSL"];

/// From the command to the end.
fn upgrade(world: &World, target: &str) -> Output {
    world.cli(&["run", "--to", target, "--yes"])
}

fn plan(world: &World, target: &str) -> (Option<i32>, Value) {
    let plan = world.cli(&["dry-run", "--to", target, "--json"]);
    (plan.status.code(), serde_json::from_slice(&plan.stdout).expect("a plan"))
}

/// A check of a plan: whether it passed, and its sentence.
fn check<'p>(plan: &'p Value, name: &str) -> (bool, &'p str) {
    let checks = plan["checks"].as_array().expect("checks");
    let found = checks.iter().find(|check| check["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no check {name}: {plan:#}"));
    (found["passed"] == true, found["message"].as_str().expect("a sentence"))
}

fn assert_verified(world: &World, run: &Output, version: &str) {
    assert_eq!(run.status.code(), Some(0), "{}", said(run));
    world.assert_sound(version, "an upgrade");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

/// The container and when it was started: the same as long as nobody touched it.
fn identity(world: &World) -> (Value, Value) {
    let container = world.container().expect("a container");
    (container["Id"].clone(), container["State"]["StartedAt"].clone())
}

#[test]
fn a_core_on_no_published_port_is_asked_at_its_own_address_and_upgraded() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").unpublished().rows(500).start();
    let _daemon = world.daemon();
    let (code, plan) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{plan:#}");
    let address = world.address().expect("an address");
    assert_eq!(check(&plan, "core"), (true, &*format!("the core answers at http://{address}/")));
    for name in ["health", "version", "supervisor", "database"] {
        assert!(check(&plan, name).0, "{plan:#}");
    }
    let run = upgrade(&world, "1.9.7");
    assert_verified(&world, &run, "1.9.7");
}

#[test]
fn a_published_database_is_never_spoken_to_in_search_of_the_core() {
    if !require("docker") {
        return;
    }
    let port = free_port();
    let world = World::build("1.9.6")
        .unpublished()
        .run_args(["--publish", &format!("127.0.0.1:{port}:5432")])
        .rows(500)
        .start();
    // Reached through the published port, as a merchant's tools reach it.
    world.sql("ALTER SYSTEM SET listen_addresses = '*'");
    world.docker(&["exec", &world.name, "supervisorctl", "restart", "postgres"]);
    world.wait_healthy();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok(), "it listens there");
    world.wait_for_payments(1);
    let before = disturbances(&world);
    let _daemon = world.daemon();

    let (code, plan) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{plan:#}");
    assert_eq!(disturbances(&world), before, "by the plan");
    let run = upgrade(&world, "1.9.7");

    assert_eq!(disturbances(&world), Vec::<String>::new(), "of the new version's database");
    assert_verified(&world, &run, "1.9.7");
}

/// Lines in which the database complains of a stranger's protocol.
fn disturbances(world: &World) -> Vec<String> {
    let log = world.container_log();
    let disturbed = |line: &&str| DISTURBED.iter().any(|sign| line.contains(sign));
    log.lines().filter(disturbed).map(str::to_owned).collect()
}

#[test]
fn a_core_on_a_network_of_its_own_behind_a_proxy_is_upgraded() {
    if !require("docker") {
        return;
    }
    let network = Network::make();
    let world = World::build("1.9.6")
        .unpublished()
        .run_args(["--network", network.0.as_str()])
        .rows(200)
        .start();
    let _proxy = Beside::run(&network.0, "sleep infinity", &[]);
    let _daemon = world.daemon();
    let run = upgrade(&world, "1.9.7");
    assert_verified(&world, &run, "1.9.7");
}

#[test]
fn a_core_in_another_containers_network_is_asked_where_that_one_is() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let port = free_port().to_string();
    let published = format!("127.0.0.1:{port}:80");
    let vpn = Beside::run("bridge", "sleep infinity", &["--publish", &published]);
    let network = format!("container:{}", vpn.0);
    let world =
        World::build("1.9.6").unpublished().run_args(["--network", &network]).rows(200).start();
    let _daemon = world.daemon();
    let (code, plan) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{plan:#}");
    let expected = format!("the core answers at http://127.0.0.1:{port}/");
    assert_eq!(check(&plan, "core"), (true, expected.as_str()));
    let run = upgrade(&world, "1.9.7");
    assert_verified(&world, &run, "1.9.7");
}

#[test]
fn a_core_that_can_not_be_seen_is_not_touched_and_the_setting_is_named() {
    if !require("docker") {
        return;
    }
    let world =
        World::build("1.9.6").rows(500).setting("CORE_BASE_URL", "http://127.0.0.1:1").start();
    let before = identity(&world);
    let daemon = world.daemon();

    let (code, plan) = plan(&world, "1.9.7");
    assert_eq!(code, Some(1), "{plan:#}");
    assert_eq!(plan["failureCode"], "CORE_NOT_VISIBLE", "{plan:#}");
    let (passed, why) = check(&plan, "core");
    assert!(!passed && why == plan["message"], "{plan:#}");
    for part in ["http://127.0.0.1:1/: Connection refused", "correct CORE_BASE_URL", "take it away"]
    {
        assert!(why.contains(part), "{part}: {why}");
    }
    for arguments in [
        &["run", "--to", "1.9.7", "--yes"][..],
        &["run", "--to", "1.9.7", "--yes", "--force"],
        &["run", "--to", "1.9.7", "--yes", "--mode", "dashboard"],
    ] {
        let run = world.cli(arguments);
        assert_eq!(run.status.code(), Some(1), "{arguments:?}: {}", said(&run));
        assert!(said(&run).contains("CORE_NOT_VISIBLE"), "{arguments:?}: {}", said(&run));
    }
    let over_tcp = daemon.post("/upgrade/run", &json!({"requestedTarget": "1.9.7"}));
    assert_eq!(over_tcp.json()["failureCode"], "CORE_NOT_VISIBLE", "{}", over_tcp.body);
    assert_eq!(identity(&world), before);
    world.assert_sound("1.9.6", "a plan that was refused");

    // The advice is good.
    drop(daemon);
    world.unset("CORE_BASE_URL");
    let _daemon = world.daemon();
    let run = upgrade(&world, "1.9.7");
    assert_verified(&world, &run, "1.9.7");
}

#[test]
fn a_container_in_no_network_is_not_touched() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(50).start();
    let _daemon = world.daemon();
    world.docker(&["network", "disconnect", "bridge", &world.name]);
    let before = identity(&world);
    let (code, plan) = plan(&world, "1.9.7");
    assert_eq!((code, &plan["failureCode"]), (Some(1), &json!("CORE_NOT_VISIBLE")), "{plan:#}");
    let (_, why) = check(&plan, "core");
    assert!(why.contains("no address of its own; set CORE_BASE_URL"), "{why}");
    assert!(check(&plan, "database").0, "it is asked inside: {plan:#}");
    assert_eq!(identity(&world), before);
}

#[test]
fn a_shop_whose_every_answer_takes_two_and_a_half_seconds_is_upgraded() {
    if !require("docker") || !in_long_run() {
        return;
    }
    let world = World::build("1.9.6").rows(200).start();
    let slow = SlowAnswers::before(world.port, Duration::from_millis(2500));
    world.set("CORE_BASE_URL", &format!("http://127.0.0.1:{}", slow.port));
    let daemon = world.daemon();
    let (code, plan) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{plan:#}");
    let run = upgrade(&world, "1.9.7");
    assert!(slow.answers() > 0, "it was asked there");
    assert_verified(&world, &run, "1.9.7");
    support::wait_until("the status says that it serves", Duration::from_secs(60), || {
        (daemon.status()["serving"] == true).then_some(())
    });
}

#[test]
fn with_less_patience_than_the_shop_needs_the_plan_names_the_setting() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(50).setting("ANSWER_TIMEOUT_SECONDS", "1").start();
    let before = identity(&world);
    let slow = SlowAnswers::before(world.port, Duration::from_millis(2500));
    world.set("CORE_BASE_URL", &format!("http://127.0.0.1:{}", slow.port));
    let _daemon = world.daemon();
    let (code, plan) = plan(&world, "1.9.7");
    assert_eq!((code, &plan["failureCode"]), (Some(1), &json!("CORE_NOT_VISIBLE")), "{plan:#}");
    let (_, why) = check(&plan, "core");
    for part in
        ["no whole answer within 1 s", "longer than 1 s to answer, set ANSWER_TIMEOUT_SECONDS"]
    {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert_eq!(identity(&world), before);
}

#[test]
fn from_a_version_that_is_not_healthy_an_operator_goes_on_by_force_alone() {
    if !require("docker") {
        return;
    }
    let world = World::build("9.0.1").unattended().start();
    support::wait_until("its core answers", Duration::from_secs(180), || {
        world.core("/api/v1/health").ok().filter(|answer| answer.status == 500)
    });
    let before = identity(&world);
    let daemon = world.daemon();
    let refused = upgrade(&world, "9.0.8");
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    for part in ["CORE_UNHEALTHY", "answered 500", "--force goes on without a way back"] {
        assert!(said(&refused).contains(part), "{part}: {}", said(&refused));
    }
    assert_eq!(identity(&world), before);

    let forced = world.cli(&["run", "--to", "9.0.8", "--yes", "--force"]);
    assert_eq!(forced.status.code(), Some(0), "{}\n{}", said(&forced), daemon.log());
    world.assert_sound("9.0.8", "an upgrade that put it right");
}

#[test]
fn a_supervisor_that_listens_and_can_not_be_asked_refuses_the_plan() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(50).start();
    let before = identity(&world);
    let _daemon = world.daemon();
    let hide = "mv $(command -v supervisorctl) /root/hidden";
    world.docker(&["exec", &world.name, "sh", "-c", hide]);
    let (code, plan) = plan(&world, "1.9.7");
    assert_eq!((code, &plan["failureCode"]), (Some(1), &json!("SUPERVISORCTL_FAILED")), "{plan:#}");
    let (_, why) = check(&plan, "supervisor");
    assert!(why.contains("supervisord listens at /run/supervisor.sock"), "{why}");
    assert_eq!(identity(&world), before);
}

/// A network that is removed with the test, after the containers on it.
struct Network(String);

impl Network {
    fn make() -> Self {
        let name = format!("payram-test-seen-{}", uuid::Uuid::now_v7().simple());
        docker(&["network", "create", &name]);
        Self(name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        clear(&["network", "rm", &self.0]);
    }
}

/// Another container of the merchant's, removed with the test.
struct Beside(String);

impl Beside {
    fn run(network: &str, command: &str, further: &[&str]) -> Self {
        let name = format!("payram-test-beside-{}", uuid::Uuid::now_v7().simple());
        let image = Fixture::get().image("1.9.6");
        let mut arguments = vec!["run", "--detach", "--name", &name, "--network", network];
        arguments.extend_from_slice(further);
        arguments.push(&image);
        arguments.extend(command.split(' '));
        docker(&arguments);
        Self(name)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        clear(&["rm", "--force", "--volumes", &self.0]);
    }
}

fn docker(arguments: &[&str]) {
    let output = Command::new("docker").args(arguments).output().expect("docker starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn clear(arguments: &[&str]) {
    match Command::new("docker").args(arguments).output() {
        Ok(output) if output.status.success() => {}
        failed => eprintln!("{arguments:?}: {failed:?}"),
    }
}

/// A small machine under load: hands each request on, and its answer after this long.
struct SlowAnswers {
    port: u16,
    answered: Arc<AtomicUsize>,
}

impl SlowAnswers {
    fn before(core: u16, after: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let answered = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&answered);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    if hand_on(client, core, after).is_ok() {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Self { port, answered }
    }

    fn answers(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }
}

/// One request, whose head comes in one piece, and its answer.
fn hand_on(mut client: TcpStream, core: u16, after: Duration) -> std::io::Result<()> {
    let mut request = vec![0; 4096];
    let length = client.read(&mut request)?;
    // The slowness itself, and no wait for anything.
    thread::sleep(after);
    let mut core = TcpStream::connect(("127.0.0.1", core))?;
    core.write_all(request.get(..length).unwrap_or_default())?;
    let mut answer = Vec::new();
    core.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Write)
}
