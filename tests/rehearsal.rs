//! A version is tried on a copy of the shop's data while the shop serves, on a real engine with a
//! real database that takes payments: good ones pass, bad ones are refused, the shop is never
//! touched, and nothing is left behind, whatever ended it (I14).

mod support;

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::builder::WorldBuilder;
use support::operator::{assert_parts, identity, said};
use support::{Daemon, Fixture, World, in_long_run, require, wait_until};

/// From the beginning of a rehearsal to its end.
const END_LIMIT: Duration = Duration::from_secs(240);

const LABEL: &str = "io.payram.updater.rehearsal";

fn world() -> World {
    shop(World::build("1.9.6"))
}

fn shop(builder: WorldBuilder) -> World {
    builder
        .rows(200)
        .setting("HEALTH_TIMEOUT_SECONDS", "8")
        // Long: one of them makes a cluster of its own first.
        .setting("START_TIMEOUT_SECONDS", "150")
        .setting("VERIFY_SECONDS", "6")
        .start()
}

fn tag_of(behaviour: &str) -> String {
    let tags = Fixture::get().tags();
    let found = tags.iter().find(|tag| tag.behaviour == behaviour);
    found.unwrap_or_else(|| panic!("tags.tsv has no {behaviour}")).tag.clone()
}

/// `rehearse --json`: its exit code and the document.
fn rehearse(world: &World, version: &str) -> (Option<i32>, Value) {
    let output = world.cli(&["rehearse", "--to", version, "--json"]);
    let document = serde_json::from_slice(&output.stdout);
    (output.status.code(), document.unwrap_or_else(|error| panic!("{error}: {}", said(&output))))
}

fn report(document: &Value) -> &Value {
    &document["job"]["rehearsal"]
}

/// Names of the containers of rehearsals.
fn containers(world: &World) -> Vec<String> {
    let listed = world.docker(&[
        "ps",
        "--all",
        "--filter",
        &format!("label={LABEL}"),
        "--format",
        &format!("{{{{.Names}}}} {{{{.Label \"{LABEL}\"}}}}"),
    ]);
    // Those of other worlds on this engine have jobs of their own.
    let jobs = fs::read(world.state_dir().join("journal.db")).unwrap_or_default();
    let wal = fs::read(world.state_dir().join("journal.db-wal")).unwrap_or_default();
    let is_ours = |job: &str| {
        let holds = |text: &[u8]| text.windows(job.len()).any(|part| part == job.as_bytes());
        holds(&jobs) || holds(&wal)
    };
    let lines = listed.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(_, job)| is_ours(job)).map(|(name, _)| name.to_owned()).collect()
}

/// What is left of rehearsals.
fn leftovers(world: &World) -> Vec<String> {
    let directory = fs::read_dir(world.state_dir().join("rehearsal"));
    let files = directory.into_iter().flatten().flatten();
    let files = files.map(|entry| entry.path().display().to_string());
    containers(world).into_iter().chain(files).collect()
}

/// The shop's container and the run that it is in.
struct Shop((Value, Value));

impl Shop {
    fn of(world: &World) -> Self {
        Self(identity(world))
    }

    /// The same container in the same run, which takes payments of which none is lost.
    fn assert_untouched(&self, world: &World, after: &str) {
        assert_eq!(identity(world), self.0, "{after}: another container, or started again");
        assert_eq!(leftovers(world), Vec::<String>::new(), "{after}");
        world.wait_for_payments(1);
        assert_eq!(world.lost(), Vec::<String>::new(), "{after}");
        assert!(world.is_healthy(), "{after}");
        assert_eq!(world.version().as_deref(), Some("1.9.6"), "{after}");
    }
}

#[test]
fn a_good_version_passes_with_what_it_migrates_and_the_shop_takes_payments_meanwhile() {
    if !require("docker") {
        return;
    }
    let world = world();
    let daemon = world.daemon();
    let shop = Shop::of(&world);
    let before = world.acked().len();
    let schema = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'payments'";
    let columns = world.sql(schema);

    let (exit, document) = rehearse(&world, "2.0.0");
    println!("{document:#}");
    assert_eq!(exit, Some(0), "{document:#}\n{}", daemon.log());
    let found = report(&document);
    assert_eq!(found["verdict"], "passed", "{document:#}");
    assert_eq!(found["new"]["version"], "2.0.0");
    let migration = found["new"]["migration"].to_string();
    assert_parts(
        &migration,
        &["table public.payments differs", "table public.webhooks is new", "schema_migrations"],
    );
    assert_eq!(found["wayBack"]["stood"]["stood"], "serves", "{document:#}");
    assert!(found["copy"]["rows"].as_u64() >= Some(200), "{document:#}");
    assert!(found["new"]["answersAfterSeconds"].as_f64() > Some(0.0), "{document:#}");
    assert!(found["new"]["memoryBytes"].as_u64() > Some(1_000_000), "{document:#}");
    assert!(world.acked().len() > before, "no payment was taken meanwhile");
    assert_eq!(world.sql(schema), columns, "the shop's schema is as it was");
    shop.assert_untouched(&world, "2.0.0 passed");

    // What regards upgrades does not regard this.
    assert_eq!(daemon.status()["state"], "IDLE");
    let job = document["jobId"].as_str().expect("a job").to_owned();
    let page = daemon.get(&format!("/upgrade/jobs/{job}")).json();
    assert_eq!((&page["kind"], &page["active"]), (&json!("rehearsal"), &json!(false)));
    let history = world.cli(&["history", "--type", "rehearsal", "--json"]);
    let history: Value = serde_json::from_slice(&history.stdout).expect("JSON");
    let statuses: Vec<&Value> =
        history["events"].as_array().expect("events").iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, ["succeeded", "started"]);
    let verified = world.cli(&["journal", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));

    // The dashboard may ask, once an hour for each image.
    let again = daemon.post("/upgrade/rehearse", &json!({"requestedTarget": "2.0.0"}));
    assert_eq!(again.status, 429, "{}", again.body);
    assert_parts(&again.body, &["REHEARSED_ALREADY", "payram-updater rehearse --to 2.0.0"]);

    // A person reads it on a terminal of 80 columns.
    let text = world.cli(&["rehearse", "--to", "1.9.8", "--text"]);
    assert_eq!(text.status.code(), Some(0), "{}", said(&text));
    let text = said(&text);
    println!("{text}");
    assert_parts(
        &text,
        &["1.9.8 serves on a copy of your data", "Way back  1.9.6", "was not stopped"],
    );
    shop.assert_untouched(&world, "1.9.8 passed");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

/// A good version passes and one whose workers write while it is unhealthy is refused, wherever the
/// shop has its database and however it is run.
fn is_told_apart(world: &World) {
    let daemon = world.daemon();
    let shop = Shop::of(world);
    for (tag, exit, verdict) in
        [("2.0.0", 0, "passed"), (&tag_of("health-500-writes"), 1, "refused")]
    {
        let (ended, document) = rehearse(world, tag);
        println!("{tag}: exit {ended:?}: {}", document["job"]["message"]);
        assert_eq!(ended, Some(exit), "{tag}: {document:#}\n{}", daemon.log());
        assert_eq!(report(&document)["verdict"], verdict, "{tag}: {document:#}");
        shop.assert_untouched(world, tag);
    }
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn on_payrams_own_mounts_with_postgresql_17_without_encoding_and_supervisor() {
    if in_long_run() && require("docker") {
        let builder = World::build("1.9.6").postgres_17().nested_mounts();
        let builder = builder.env("PAYRAM_ENCODING", "SQL_ASCII");
        is_told_apart(&shop(builder.env("PAYRAM_SUPERVISOR", "off")));
    }
}

#[test]
fn with_the_hosts_own_process_numbers_and_labels_that_a_proxy_acts_on() {
    if in_long_run() && require("docker") {
        let arguments =
            ["--pid", "host", "--label", "traefik.enable=true", "--cap-add", "NET_ADMIN"];
        is_told_apart(&shop(World::build("1.9.6").run_args(arguments)));
    }
}

/// Refused, with a word of why, in a world that is as it was.
fn is_refused(behaviours: &[(&str, &str)]) {
    let world = world();
    let daemon = world.daemon();
    let shop = Shop::of(&world);
    for (behaviour, why) in behaviours {
        let tag = tag_of(behaviour);
        let (exit, document) = rehearse(&world, &tag);
        let message = document["job"]["message"].as_str().unwrap_or_default();
        println!("{tag} ({behaviour}): exit {exit:?}: {message}");
        assert_eq!(exit, Some(1), "{behaviour}: {document:#}\n{}", daemon.log());
        assert_eq!(report(&document)["verdict"], "refused", "{behaviour}: {document:#}");
        assert_eq!(document["job"]["failureCode"], "REHEARSAL_FAILED", "{document:#}");
        assert_parts(message, &[why, "Nothing was stopped"]);
        assert_eq!(report(&document)["control"]["stood"]["stood"], "serves", "{document:#}");
        shop.assert_untouched(&world, behaviour);
    }
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn versions_that_answer_and_are_not_well_are_refused() {
    if require("docker") {
        is_refused(&[
            ("health-500", "500"),
            ("wrong-version", "expected version 9.0.3, it reports 1.0.0"),
            ("dies", "exit code"),
            ("health-500-writes", "500"),
        ]);
    }
}

#[test]
fn versions_that_never_answer_are_refused() {
    if in_long_run() && require("docker") {
        is_refused(&[
            ("exits-at-start", "exit code 1"),
            ("migration-schema", "payram-core"),
            ("migration-rows-writes", "payram-core"),
        ]);
    }
}

#[test]
fn versions_that_serve_another_database_or_spoil_the_data_are_refused() {
    if require("docker") {
        is_refused(&[
            ("elsewhere", "another database"),
            ("re-encrypts", "500"),
            ("rewrites-key", "500"),
        ]);
    }
}

/// A rehearsal that is followed in the background.
fn begin(world: &World, version: &str) -> Child {
    let mut command = world.updater(&["rehearse", "--to", version, "--json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the command starts")
}

fn end(child: Child) -> (Option<i32>, String) {
    let output: Output = child.wait_with_output().expect("it ends");
    (output.status.code(), said(&output))
}

/// The container in which the new version is tried, once its core listens.
fn tried(world: &World) -> String {
    let name = wait_until("the new version runs", END_LIMIT, || {
        containers(world).into_iter().find(|name| name.ends_with("-new"))
    });
    wait_until("its core listens", END_LIMIT, || {
        let asked = "import socket; socket.create_connection(('127.0.0.1', 80), 1)";
        inside(world, &name, &["python3", "-c", asked]).status.success().then_some(())
    });
    name
}

fn inside(world: &World, container: &str, command: &[&str]) -> Output {
    let mut exec = Command::new("docker");
    exec.env("DOCKER_HOST", format!("unix://{}", world.engine().display()));
    exec.args(["exec", container]).args(command).output().expect("docker starts")
}

#[test]
fn from_inside_a_rehearsal_nothing_of_the_shop_or_of_the_world_is_reached() {
    if !require("docker") {
        return;
    }
    let beside = tempfile::tempdir().expect("a directory");
    let sockets = beside.path().join("sockets");
    fs::create_dir(&sockets).expect("a directory");
    let _socket = UnixListener::bind(sockets.join("postgres.sock")).expect("a socket");
    let alone = beside.path().join("docker.sock");
    let _alone = UnixListener::bind(&alone).expect("a socket");
    let pipes = beside.path().join("pipes");
    fs::create_dir(&pipes).expect("a directory");
    assert!(Command::new("mkfifo").arg(pipes.join("orders")).status().expect("mkfifo").success());
    let world = World::build("1.9.6")
        .rows(50)
        .run_args([
            format!("--volume={}:/sockets", sockets.display()),
            format!("--volume={}:/docker.sock", alone.display()),
            format!("--volume={}:/pipes", pipes.display()),
            "--label=traefik.enable=true".to_owned(),
            "--add-host=shop.example:10.9.8.7".to_owned(),
            "--cap-add=NET_ADMIN".to_owned(),
        ])
        .setting("VERIFY_SECONDS", "40")
        .setting("HEALTH_TIMEOUT_SECONDS", "90")
        .setting("CORE_BASE_URL", "")
        .start();
    // The shop's own address: whatever is asked there is asked of the shop.
    world.set("CORE_BASE_URL", &format!("http://127.0.0.1:{}", world.port));
    let _daemon = world.daemon();
    let shop = Shop::of(&world);
    let child = begin(&world, "2.0.0");
    let name = tried(&world);
    let container = world.inspect(&name).expect("a container");
    let says = |command: &[&str]| said(&inside(&world, &name, command));

    let routes = says(&["cat", "/proc/net/route"]);
    assert_eq!(routes.lines().count(), 1, "no route: {routes}");
    let devices = says(&["ls", "/sys/class/net"]);
    assert_eq!(devices.trim(), "lo");
    let resolve = "import socket
for name in ('shop.example', 'deb.debian.org'):
    try: print(name, socket.gethostbyname(name))
    except OSError as error: print('no', error)";
    assert!(!says(&["python3", "-c", resolve]).contains("10.9.8.7"));
    for empty in ["/sockets", "/pipes"] {
        assert_eq!(says(&["ls", "-A", empty]).trim(), "", "{empty}");
    }
    let special = says(&[
        "find",
        "/docker.sock",
        "/sockets",
        "/pipes",
        "/var/lib/payram",
        "/ack",
        "(",
        "-type",
        "s",
        "-o",
        "-type",
        "p",
        "-o",
        "-type",
        "b",
        ")",
    ]);
    assert_eq!(special.trim(), "");
    let labels = &container["Config"]["Labels"];
    assert!(labels["traefik.enable"].is_null() || labels["traefik.enable"] == "", "{labels:#}");
    let ports = &container["HostConfig"]["PortBindings"];
    assert!(ports.as_object().is_none_or(serde_json::Map::is_empty), "{ports}");
    assert_eq!(container["HostConfig"]["NetworkMode"], "none");
    assert_eq!(container["HostConfig"]["LogConfig"]["Type"], "local");
    assert!(container["HostConfig"]["CapAdd"].is_null(), "{}", container["HostConfig"]["CapAdd"]);
    assert!(container["HostConfig"]["Memory"].as_u64() > Some(0));
    assert_eq!(container["HostConfig"]["OomScoreAdj"], 1000);
    for mount in container["Mounts"].as_array().expect("mounts") {
        let source = mount["Source"].as_str().unwrap_or_default();
        let ours = world.state_dir().join("rehearsal").display().to_string();
        assert!(mount["RW"] == false || source.starts_with(&ours), "{mount}");
    }
    // What it writes stays with it.
    inside(
        &world,
        &name,
        &["sh", "-c", "echo x >/ack/x; echo x >/var/lib/payram/x; echo x >/sockets/x"],
    );
    for path in [world.ack_dir().join("x"), world.data_dir().join("x"), sockets.join("x")] {
        assert!(!path.exists(), "{}", path.display());
    }
    let (exit, text) = end(child);
    assert_eq!(exit, Some(0), "{text}");
    assert_parts(&text, &["\"passed\"", "/sockets is empty"]);
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(report(&document)["new"]["version"], "2.0.0", "the copy was asked, not the shop");
    shop.assert_untouched(&world, "the look from inside");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_volume_that_an_image_declares_is_made_for_the_copy_and_goes_with_it() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let tag = tag_of("volume-above");
    let world = World::build("1.9.6").rows(50).setting("VERIFY_SECONDS", "8").start();
    let _daemon = world.daemon();
    let shop = Shop::of(&world);
    let child = begin(&world, &tag);
    let container = world.inspect(&tried(&world)).expect("a container");
    let mounts = container["Mounts"].as_array().expect("mounts");
    let volumes: Vec<&str> = mounts.iter().filter_map(|mount| mount["Name"].as_str()).collect();
    assert_eq!(volumes.len(), 1, "{mounts:#?}");
    assert!(world.inspect(volumes[0]).is_some(), "{}", volumes[0]);
    let (exit, text) = end(child);
    assert_eq!(exit, Some(0), "{text}");
    assert!(world.inspect(volumes[0]).is_none(), "{} is left", volumes[0]);
    shop.assert_untouched(&world, &tag);
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn what_a_killed_daemon_left_is_swept_up_at_its_next_start_and_never_taken_up_again() {
    if !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(50).setting("VERIFY_SECONDS", "30").start();
    for at in ["the rebuilt database", "the new version"] {
        let daemon = world.daemon();
        let shop = Shop::of(&world);
        let child = begin(&world, "2.0.0");
        let name = match at {
            "the new version" => tried(&world),
            _ => wait_until("the copy's server runs", END_LIMIT, || {
                containers(&world).into_iter().find(|name| name.ends_with("-database"))
            }),
        };
        println!("killed while {name} runs");
        daemon.kill();
        assert!(!leftovers(&world).is_empty(), "{at}");
        let daemon = world.daemon();
        wait_until("it is swept up", END_LIMIT, || leftovers(&world).is_empty().then_some(()));
        let (exit, text) = end(child);
        assert_eq!(exit, Some(1), "{at}: {text}");
        assert_parts(&text, &["STEP_INTERRUPTED", "was not finished", "Nothing was stopped"]);
        shop.assert_untouched(&world, at);
        assert!(daemon.terminate().success());
    }
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn a_rehearsal_is_called_off_by_a_person_and_gives_way_to_an_upgrade() {
    if !in_long_run() || !require("docker") {
        return;
    }
    let world = World::build("1.9.6").rows(50).setting("VERIFY_SECONDS", "8").start();
    let daemon: Daemon = world.daemon();
    let shop = Shop::of(&world);
    let child = begin(&world, "2.0.0");
    tried(&world);
    let second = world.cli(&["rehearse", "--to", "1.9.8", "--json"]);
    assert_eq!(second.status.code(), Some(1), "{}", said(&second));
    assert_parts(&said(&second), &["CONCURRENCY_BLOCKED"]);
    let cancelled = world.cli(&["cancel", "--yes", "--json"]);
    assert_eq!(cancelled.status.code(), Some(0), "{}", said(&cancelled));
    let (exit, text) = end(child);
    assert_eq!(exit, Some(1), "{text}");
    assert_parts(&text, &["CANCELLED", "cancelled by the operator", "Nothing was stopped"]);
    shop.assert_untouched(&world, "called off");

    let child = begin(&world, "2.0.0");
    tried(&world);
    let run = world.cli(&["run", "--to", "1.9.7", "--yes"]);
    assert_eq!(run.status.code(), Some(0), "{}\n{}", said(&run), daemon.log());
    let (exit, text) = end(child);
    assert_eq!(exit, Some(1), "{text}");
    assert_parts(&text, &["CANCELLED", "for an upgrade"]);
    assert_eq!(leftovers(&world), Vec::<String>::new());
    world.assert_sound("1.9.7", "an upgrade that ended a rehearsal");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn without_room_or_time_it_is_skipped_and_says_why() {
    if !require("docker") {
        return;
    }
    let world = world();
    let small = world.path("small");
    fs::create_dir(&small).expect("a directory");
    let _disk = support::SmallDisk::mount(small.clone(), "64m");
    world.set("REHEARSAL_DIR", &small.display().to_string());
    let shop = Shop::of(&world);
    let daemon = world.daemon();
    let (exit, document) = rehearse(&world, "2.0.0");
    assert_eq!(exit, Some(1), "{document:#}");
    assert_eq!(report(&document)["verdict"], "skipped", "{document:#}");
    assert_eq!(document["job"]["failureCode"], "DISK_SPACE_LOW");
    let message = document["job"]["message"].as_str().unwrap_or_default();
    println!("{message}");
    assert_parts(message, &["2.0.0 was not tried", &small.display().to_string(), "short by"]);
    shop.assert_untouched(&world, "no room");
    assert!(daemon.terminate().success());

    world.unset("REHEARSAL_DIR");
    world.set("REHEARSAL_MINUTES", "0.1");
    world.set("VERIFY_SECONDS", "30");
    let _daemon = world.daemon();
    let (exit, document) = rehearse(&world, "2.0.0");
    let message = document["job"]["message"].as_str().unwrap_or_default();
    println!("{message}");
    let verdict = report(&document)["verdict"].as_str().unwrap_or_default();
    match verdict {
        // Where the copy was there in time, it is the version that had too little of it.
        "unsure" => assert_eq!(exit, Some(0), "{document:#}"),
        _ => assert_eq!((exit, verdict), (Some(1), "skipped"), "{document:#}"),
    }
    assert_parts(message, &["REHEARSAL_MINUTES", "Nothing was stopped"]);
    shop.assert_untouched(&world, "no time");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}
