//! The same good upgrade in the shapes in which a shop is found: PostgreSQL 15 and 17, the mounts
//! of PayRam's own start command, named volumes, no supervisor, an external database.

mod support;

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::builder::WorldBuilder;
use support::operator::{check, plan, said, upgrade};
use support::{World, free_port, postgres_bin, require, wait_until};

/// Plan, upgrade, and what is there afterwards.
fn is_upgraded(builder: WorldBuilder) -> World {
    let world = builder.rows(300).start();
    let daemon = world.daemon();
    let (code, ready) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{ready:#}");
    println!("{}", check(&ready, "directory").1);
    let run = upgrade(&world, "1.9.7");
    assert_eq!(run.status.code(), Some(0), "{}\n{}", said(&run), daemon.log());
    world.assert_sound("1.9.7", "an upgrade");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
    world
}

#[test]
fn with_postgresql_17() {
    if require("docker") {
        is_upgraded(World::build("1.9.6").postgres_17());
    }
}

#[test]
fn with_the_mounts_of_payrams_own_start_command() {
    if require("docker") {
        is_upgraded(World::build("1.9.6").nested_mounts());
    }
}

#[test]
fn with_postgresql_17_nested_mounts_and_no_supervisor() {
    if require("docker") {
        is_upgraded(
            World::build("1.9.6").postgres_17().nested_mounts().env("PAYRAM_SUPERVISOR", "off"),
        );
    }
}

#[test]
fn without_a_supervisor() {
    if require("docker") {
        is_upgraded(World::build("1.9.6").env("PAYRAM_SUPERVISOR", "off"));
    }
}

#[test]
fn in_locale_c_and_sql_ascii() {
    if require("docker") {
        is_upgraded(World::build("1.9.6").env("PAYRAM_ENCODING", "SQL_ASCII"));
    }
}

#[test]
fn with_the_database_in_a_named_volume() {
    if !require("docker") {
        return;
    }
    let volume = Volume(format!("payram-test-shapes-{}", uuid::Uuid::now_v7().simple()));
    // Over the directory that a world mounts.
    is_upgraded(
        World::build("1.9.6").run_args(["--volume", &format!("{}:/var/lib/payram/db", volume.0)]),
    );
}

/// Removed with the test, after the containers on it.
struct Volume(String);

impl Drop for Volume {
    fn drop(&mut self) {
        let removed = Command::new("docker").args(["volume", "rm", &self.0]).output();
        if !removed.is_ok_and(|output| output.status.success()) {
            eprintln!("volume {} is not removed", self.0);
        }
    }
}

/// The engine unmounts such a volume when its last container stops: the directory that its options
/// name is the one that is copied, put back and watched.
#[test]
fn with_the_database_in_a_volume_that_binds_a_directory() {
    if !require("docker") {
        return;
    }
    let home = tempfile::tempdir().expect("a directory");
    let volume = Volume(format!("payram-test-shapes-{}", uuid::Uuid::now_v7().simple()));
    let device = format!("device={}", home.path().display());
    let options = ["--opt", "type=none", "--opt", "o=bind", "--opt", &device];
    succeed(Command::new("docker").args(["volume", "create"]).args(options).arg(&volume.0));
    let mounted = format!("{}:/var/lib/payram/db", volume.0);
    let world = is_upgraded(World::build("1.9.6").run_args(["--volume", &mounted]));
    let daemon = world.daemon();
    world.begin_upgrade(support::Fixture::get().tag_of("migration-schema"));
    let status = daemon.wait_settled(Duration::from_secs(240));
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    let entries = std::fs::read_dir(home.path()).expect("the volume's directory").flatten();
    let names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().any(|name| name.contains(".failed-")), "it was put back: {names:?}");
    assert_eq!(world.payments_lost(), Vec::<String>::new());
}

/// What is mounted at a directory of this host, until the test ends.
struct MountPoint(PathBuf);

impl Drop for MountPoint {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("--lazy").arg(&self.0).output();
        if !done.is_ok_and(|output| output.status.success()) {
            eprintln!("{} is not unmounted", self.0.display());
        }
    }
}

/// No rename moves it: it comes back by its contents.
#[test]
fn with_the_databases_directory_as_a_mount_point() {
    if !require("docker") || !require("root") {
        return;
    }
    let world = World::build("1.9.6").rows(300).start();
    let directory = world.data_dir().join("db/postgres");
    succeed(Command::new("mount").arg("--bind").arg(&directory).arg(&directory));
    let _mounted = MountPoint(directory);
    let daemon = world.daemon();
    let (code, ready) = plan(&world, "1.9.7");
    assert_eq!(code, Some(0), "{ready:#}");
    let (_, works) = check(&ready, "directory");
    assert!(works.contains("put back by its contents"), "{works}");
    world.begin_upgrade(support::Fixture::get().tag_of("migration-schema"));
    let status = daemon.wait_settled(Duration::from_secs(240));
    assert_eq!(status["phase"], "ROLLED_BACK", "{status:#}\n{}", daemon.log());
    println!("{}", status["message"]);
    assert!(!world.failed_directories().is_empty(), "what the failed version left is kept");
    world.assert_sound("1.9.6", "a way back by contents");
    assert_eq!(world.two_at_once(), Vec::<String>::new());
}

#[test]
fn with_the_hosts_own_process_numbers() {
    if require("docker") {
        is_upgraded(World::build("1.9.6").run_args(["--pid", "host"]));
    }
}

#[test]
fn with_an_external_database() {
    if !require("docker") || !require("postgres") || !require("root") {
        return;
    }
    let server = External::start();
    let world = is_upgraded(
        World::build("1.9.6")
            .env("POSTGRES_HOST", "172.17.0.1")
            .env("POSTGRES_PORT", &server.port.to_string())
            .env("POSTGRES_SSLMODE", "disable")
            .env("PGHOST", "172.17.0.1")
            .env("PGPORT", &server.port.to_string())
            .env("PGUSER", "payram")
            .env("PGPASSWORD", support::world::PASSWORD),
    );
    a_backup_is_put_back_also_when_the_container_is_gone(&world, &server);
}

fn a_backup_is_put_back_also_when_the_container_is_gone(world: &World, server: &External) {
    let _daemon = world.daemon();
    let made = world.cli(&["backup", "create"]);
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let file = made["backup"]["path"].as_str().expect("a path");
    let wallets = || server.ask("payram", "SELECT count(*) FROM wallets");
    let before = wallets();
    for is_there in [true, false] {
        if !is_there {
            world.docker(&["rm", "--force", &world.name]);
        }
        server.ask("payram", "DROP TABLE wallets");
        let put_back = world.cli(&["backup", "restore", "--file", file, "--yes"]);
        assert_eq!(put_back.status.code(), Some(0), "{}", said(&put_back));
        assert_eq!(wallets(), before, "with a container: {is_there}");
    }
    let kept = "SELECT count(*) FROM pg_database WHERE datname LIKE 'payram_before_restore_%'";
    assert_eq!(server.ask("postgres", kept), "2");
    let remembered = std::fs::metadata(world.state_dir().join("database.json"));
    let mode = remembered.expect("it is written down").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// A server on this host, which the containers of the default network reach at its bridge.
struct External {
    port: u16,
    home: tempfile::TempDir,
    bin: PathBuf,
}

impl External {
    fn start() -> Self {
        let bin = postgres_bin().expect("it was required");
        let home = tempfile::tempdir().expect("a directory");
        let server = Self { port: free_port(), home, bin };
        succeed(Command::new("chown").arg("postgres").arg(server.home.path()));
        let data = server.data();
        server.run("initdb", &["--pgdata", &data, "--auth-local", "trust", "--no-sync"]);
        let rules = "host all all all scram-sha-256\n";
        let file = server.home.path().join("data/pg_hba.conf");
        let text = std::fs::read_to_string(&file).expect("rules");
        std::fs::write(&file, format!("{text}{rules}")).expect("rules");
        let options = format!(
            "-p {} -c listen_addresses=172.17.0.1 -c unix_socket_directories={}",
            server.port,
            server.home.path().display()
        );
        let log = server.home.path().join("log").display().to_string();
        server.run("pg_ctl", &["--pgdata", &data, "--log", &log, "-o", &options, "-w", "start"]);
        wait_until("the external server listens", Duration::from_secs(60), || {
            TcpStream::connect(("172.17.0.1", server.port)).ok().map(drop)
        });
        let password = support::world::PASSWORD.replace('\'', "''");
        for sql in [
            format!("CREATE ROLE payram LOGIN CREATEDB PASSWORD '{password}'"),
            "CREATE DATABASE payram OWNER payram".to_owned(),
        ] {
            let socket = server.home.path().display().to_string();
            let port = server.port.to_string();
            server.run("psql", &["-X", "-h", &socket, "-p", &port, "-d", "postgres", "-c", &sql]);
        }
        server
    }

    /// What its keeper is answered.
    fn ask(&self, database: &str, sql: &str) -> String {
        let ids = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
        let answered = Command::new("setpriv")
            .args(ids)
            .arg(self.bin.join("psql"))
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-h"])
            .arg(self.home.path())
            .args(["-p", &self.port.to_string(), "-d", database, "-c", sql])
            .output()
            .expect("psql");
        assert!(answered.status.success(), "{sql}: {}", said(&answered));
        String::from_utf8_lossy(&answered.stdout).trim().to_owned()
    }

    fn data(&self) -> String {
        self.home.path().join("data").display().to_string()
    }

    fn run(&self, program: &str, args: &[&str]) {
        let ids = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
        succeed(Command::new("setpriv").args(ids).arg(self.bin.join(program)).args(args));
    }
}

impl Drop for External {
    fn drop(&mut self) {
        let data = self.data();
        let ids = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
        let stop = ["--pgdata", &data, "--mode", "immediate", "stop"];
        let ended =
            Command::new("setpriv").args(ids).arg(self.bin.join("pg_ctl")).args(stop).output();
        if !ended.is_ok_and(|output| output.status.success()) {
            eprintln!("the external server is not ended");
        }
    }
}

fn succeed(command: &mut Command) {
    // A server that is left running must not hold this command's pipes.
    let output = tempfile::tempfile().expect("a file");
    let status = command
        .stdout(output.try_clone().expect("a second handle"))
        .stderr(output.try_clone().expect("a second handle"))
        .status();
    let said = || {
        use std::io::{Read as _, Seek as _};
        let (mut file, mut text) = (&output, String::new());
        file.rewind().and_then(|()| file.read_to_string(&mut text)).map(|_| text)
    };
    assert!(status.is_ok_and(|status| status.success()), "{command:?}: {:?}", said());
}
