//! The daemon as a service: what it tells systemd, and, in the long run, a machine that boots
//! systemd, on which it is installed by one line, upgrades, is restarted, killed and frozen in the
//! middle of upgrades, and is removed again.

mod support;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::http::Request;
use support::machine::{Machine, release};
use support::sandbox::{scenario, updater, write_scenario};
use support::{Sandbox, World, free_port, in_long_run, require, wait_until};

/// From something that was done to what follows from it.
const SOON: Duration = Duration::from_secs(60);

/// Where systemd would listen.
struct Listener {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Listener {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        Self { socket, heard: Vec::new() }
    }

    /// The next message; none when there is none for a moment.
    fn hear(&mut self) -> Option<String> {
        let mut buffer = [0; 1024];
        let read = self.socket.recv(&mut buffer).ok()?;
        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
        self.heard.push(text.clone());
        Some(text)
    }

    /// Listens until a message has this in it.
    fn await_message(&mut self, part: &str) -> String {
        wait_until(part, SOON, || self.hear().filter(|text| text.contains(part)))
    }
}

#[test]
fn systemd_is_told_what_is_done_and_that_it_goes_on() {
    let root = tempfile::tempdir().expect("a directory");
    write_scenario(root.path(), &scenario(50, &json!({"1.9.7": {}})));
    let sandbox = Sandbox::start(root.path());
    let settings = sandbox.settings(root.path(), free_port());
    let notify = root.path().join("notify");
    let mut systemd = Listener::at(&notify);
    let log = fs::File::create(root.path().join("log")).expect("a log");
    let mut daemon = updater(root.path())
        .arg("serve")
        .envs(&settings)
        .envs([("VERIFY_SECONDS", "1"), ("PROBATION_MINUTES", "0")])
        .env("NOTIFY_SOCKET", &notify)
        .env("WATCHDOG_USEC", "1500000")
        .stderr(log)
        .spawn()
        .expect("the daemon starts");
    systemd.await_message("READY=1");
    systemd.await_message("STATUS=Ready; no upgrade was ever run here");
    systemd.await_message("WATCHDOG=1");
    systemd.await_message("WATCHDOG=1");
    let run = updater(root.path()).args(["run", "--to", "1.9.7", "--yes"]).envs(&settings).output();
    assert!(run.expect("the command").status.success());
    systemd.await_message("STATUS=Ready; the last upgrade, 1.9.6 -> 1.9.7, ended VERIFIED");
    let during = systemd.heard.iter().find(|text| text.contains("STATUS=Upgrade 1.9.6 -> 1.9.7: "));
    assert!(during.is_some(), "{:?}", systemd.heard);

    // A daemon that does not take requests any more is not called alive.
    fs::remove_file(root.path().join("run/updater.sock")).expect("its socket");
    let said = || fs::read_to_string(root.path().join("log")).expect("a log");
    wait_until("it says that it is not fed", SOON, || {
        said().contains("the socket does not answer: systemd's watchdog is not fed").then_some(())
    });
    while systemd.hear().is_some_and(|text| text.contains("WATCHDOG=1")) {}
    let pid = Pid::from_raw(i32::try_from(daemon.id()).expect("a pid")).expect("a pid");
    kill_process(pid, Signal::TERM).expect("a signal");
    assert_eq!(systemd.await_message("="), "STOPPING=1");
    assert!(daemon.wait().expect("its end").success());
}

/// What the program weighs, how soon a daemon answers, and what an idle one keeps in memory: told,
/// never judged. Of the program that `PAYRAM_WEIGHED` names (a release), or of the test's own.
#[test]
fn what_the_program_weighs_and_how_soon_it_answers_is_told() {
    let program = support::setting::<String>("PAYRAM_WEIGHED");
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_payram-updater").to_owned());
    let root = tempfile::tempdir().expect("a directory");
    write_scenario(root.path(), &scenario(50, &json!({})));
    let sandbox = Sandbox::start(root.path());
    let port = free_port();
    let (mut starts, mut memory) = (Vec::new(), String::new());
    for _ in 0..9 {
        let began = Instant::now();
        let mut daemon = Command::new(&program)
            .arg("serve")
            .env_clear()
            .current_dir(root.path())
            .envs(sandbox.settings(root.path(), port))
            .stderr(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        let answers = || Request::get("/health").to_port(port).is_ok_and(|it| it.status == 200);
        while !answers() {
            assert!(began.elapsed() < SOON, "it does not answer");
            std::thread::sleep(Duration::from_millis(1));
        }
        starts.push(began.elapsed());
        // It has looked at its engine and its journal by then.
        std::thread::sleep(Duration::from_secs(1));
        let status =
            fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("a process");
        let lines =
            status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("RssAnon"));
        memory = lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join(", ");
        daemon.kill().and_then(|()| daemon.wait()).expect("its end");
    }
    starts.sort();
    let bytes = fs::metadata(&program).expect("the program").len();
    println!("{program}: {bytes} bytes");
    println!(
        "start to first answer: median {:?}, from {:?} to {:?}",
        starts[4], starts[0], starts[8]
    );
    println!("idle: {memory}");
    assert!(memory.contains("VmRSS"), "{memory}");
}

#[test]
fn without_systemd_a_restart_says_what_to_do() {
    if Path::new("/run/systemd/system").is_dir() {
        println!("systemd runs here: not looked at");
        return;
    }
    let root = tempfile::tempdir().expect("a directory");
    let output = updater(root.path()).args(["restart", "--json"]).output().expect("the command");
    assert_eq!(output.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["code"], "NO_SYSTEMD");
}

#[test]
fn config_says_what_is_set_where_and_what_is_wrong() {
    let root = tempfile::tempdir().expect("a directory");
    fs::write(root.path().join(".env"), "PG_PASSWORD=hunter2\nUPDATER_PORT=0\nODD=1\n")
        .expect("a file");
    let config = |arguments: &[&str]| {
        let mut command = updater(root.path());
        command.arg("config").args(arguments).env("POLICY_URL", "/p.json");
        command.env("RUNTIME_MANIFEST_URL", "/m.json").output().expect("the command")
    };
    let output = config(&[]);
    assert_eq!(output.status.code(), Some(1), "a port of 0");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let of = |key: &str| {
        let all = answer["settings"].as_array().expect("settings");
        all.iter().find(|one| one["key"] == key).unwrap_or_else(|| panic!("{key}")).clone()
    };
    assert_eq!(of("POLICY_URL")["source"], "environment");
    assert_eq!(of("PG_PASSWORD")["value"], "***");
    assert!(of("PG_PASSWORD")["source"].as_str().is_some_and(|it| it.ends_with("/.env:1")));
    assert_eq!(
        (of("LOG")["value"].as_str(), of("LOG")["source"].as_str()),
        (Some("info"), Some("default"))
    );
    assert!(answer["problems"][0].as_str().is_some_and(|it| it.contains("UPDATER_PORT is `0`")));
    assert!(answer["warnings"][0].as_str().is_some_and(|it| it.contains("unknown setting `ODD`")));
    let person = config(&["--text"]);
    let text = String::from_utf8_lossy(&person.stdout);
    assert!(text.contains("\nBACKUP_RETENTION        10\n"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80 || line.contains(".env")), "{text}");
    assert_eq!(config(&["backup_retention", "--text"]).stdout, b"10\n");
    assert_eq!(config(&["NOTHING"]).status.code(), Some(2));
    let example = config(&["--example"]);
    assert_eq!(
        String::from_utf8_lossy(&example.stdout),
        include_str!("../packaging/examples/updater.env.example")
    );
}

#[test]
fn the_readme_has_every_setting_with_its_default() {
    let root = tempfile::tempdir().expect("a directory");
    let output = updater(root.path()).arg("config").output().expect("the command");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let readme = include_str!("../README.md");
    for one in answer["settings"].as_array().expect("settings") {
        let (key, about) =
            (one["key"].as_str().expect("a key"), one["about"].as_str().expect("text"));
        let default = match (key, one["default"].as_str()) {
            ("POLICY_URL" | "RUNTIME_MANIFEST_URL", _) => "required".to_owned(),
            (_, Some(default)) => format!("`{default}`"),
            (_, None) => String::new(),
        };
        let row = format!("| `{key}` | {default} | {about} |");
        assert!(readme.contains(&row), "README.md lacks: {row}");
    }
}

fn installed_on(suite: &str) {
    let world = World::build("1.9.6").below("/srv").rows(200).start();
    let machine = Machine::boot(suite, &world);
    let base = release();
    let environment = format!(
        "POLICY_URL={} RUNTIME_MANIFEST_URL={} PAYRAM_UPDATER_DOWNLOAD_URL={base}/payram-updater-linux-amd64",
        world.path("policy.json").display(),
        world.path("manifest.json").display(),
    );
    let one_line = format!("curl -fsSL {base}/setup_payram_updater.sh | {environment} bash");
    println!("{}", machine.must(&one_line));
    assert_eq!(machine.show("ActiveState"), "active");

    // What this test's shop needs, and a watchdog that it can wait for.
    let settings = format!(
        "UPDATER_PORT={}\nTARGET_CONTAINER_NAME={}\nIMAGE_REPO_OVERRIDE={}\nVERIFY_SECONDS=3\nPROBATION_MINUTES=0\n",
        world.updater_port,
        world.name,
        support::Fixture::get().repo(),
    );
    machine.must(&format!("printf '{settings}' >>/etc/payram/updater.env"));
    machine.must("mkdir -p /etc/systemd/system/payram-updater.service.d");
    let drop_in = "[Service]\\nWatchdogSec=9\\n";
    machine.must(&format!(
        "printf '{drop_in}' >/etc/systemd/system/payram-updater.service.d/test.conf && systemctl daemon-reload"
    ));
    println!("{}", machine.must("payram-updater restart --text"));
    println!("{}", machine.must("systemd-analyze security --no-pager payram-updater | tail -n 1"));
    assert_eq!(machine.job()["state"], "IDLE");
    println!("{}", machine.must(&one_line));

    machine.must("payram-updater run --to 1.9.7 --yes");
    machine.await_verified(&world, "1.9.7");

    println!("restarted by systemctl in mid-upgrade");
    machine.must("payram-updater run --to 1.9.8 --yes --detach");
    machine.await_step(&["quiesce", "stop_old", "restore_point", "verify"]);
    machine.must("systemctl restart payram-updater");
    machine.await_verified(&world, "1.9.8");

    println!("frozen in mid-upgrade");
    machine.must("payram-updater run --to 2.0.0 --yes --detach");
    machine.await_step(&["stop_old", "restore_point", "verify"]);
    let restarts = machine.show("NRestarts");
    machine.must("kill -STOP $(systemctl show payram-updater --value -p MainPID)");
    wait_until("the watchdog restarts it", SOON, || {
        (machine.show("NRestarts") != restarts && machine.show("ActiveState") == "active")
            .then_some(())
    });
    machine.must("journalctl -u payram-updater | grep 'Watchdog timeout'");
    machine.await_verified(&world, "2.0.0");

    println!("killed in mid-upgrade");
    machine.must("payram-updater run --to 1.9.8 --force --yes --detach");
    machine.await_step(&["stop_old", "restore_point", "verify"]);
    machine.must("kill -KILL $(systemctl show payram-updater --value -p MainPID)");
    machine.await_verified(&world, "1.9.8");

    println!("booted again");
    let restarted =
        Command::new("docker").args(["restart", "--time", "20", &machine.name]).output();
    assert!(restarted.expect("docker").status.success());
    machine.await_boot();
    wait_until("the daemon answers", SOON, || (machine.job()["phase"] == "VERIFIED").then_some(()));
    assert_eq!(world.version().as_deref(), Some("1.9.8"));

    println!(
        "{}",
        machine.must(&format!(
            "curl -fsSL {base}/setup_payram_updater.sh | bash -s -- --uninstall --yes"
        ))
    );
    let left = machine.must("find /etc /usr/local /var/lib /run -iname '*payram*' -not -path '/var/lib/payram-updater/data/*'");
    assert_eq!(left.trim(), "/var/lib/payram-updater");
    let left = machine.must("find /var/lib/payram-updater -type f");
    assert!(left.lines().all(|path| path.contains("/data/backups/payram-backup-")), "{left}");
    assert_eq!(world.version().as_deref(), Some("1.9.8"), "the shop is not touched");
    assert_eq!(world.lost(), Vec::<String>::new());
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn on_a_booted_debian_12_it_is_installed_upgrades_through_everything_and_is_removed() {
    if in_long_run() && require("docker") {
        installed_on("bookworm");
    }
}

#[test]
fn on_a_booted_debian_13_it_is_installed_upgrades_through_everything_and_is_removed() {
    if in_long_run() && require("docker") {
        installed_on("trixie");
    }
}
