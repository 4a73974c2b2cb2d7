//! A database that is not in PayRam's container: a PostgreSQL server of a test's own on this host,
//! with TLS where that is asked for, behind a pooler, or in another container of the same network.
//!
//! ```text
//! let server = External::start(Tls::None);
//! let world = server.shop(World::build("1.9.6"), server.port).start();
//! server.ask("payram", "SELECT count(*) FROM payments");
//! ```

use std::fs;
use std::io::{Read as _, Seek as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::builder::WorldBuilder;
use super::operator::said;
use super::world::PASSWORD;
use super::{free_port, postgres_bin, wait_until};

/// From its start to its first answer.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Servers refuse to run as root.
const AS_POSTGRES: [&str; 3] = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];

/// Whether the server wants its connections encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// It has no certificate.
    None,
    /// It refuses every other connection.
    Required,
}

/// The server, which containers of the default network reach at its bridge.
pub struct External {
    /// Where it listens, for this host and for containers.
    pub address: String,
    /// Its port.
    pub port: u16,
    home: tempfile::TempDir,
    bin: PathBuf,
}

impl External {
    /// A server with an empty database `payram` of the role `payram`.
    pub fn start(tls: Tls) -> Self {
        let bin = postgres_bin().expect("it was required");
        let bridge = output(Command::new("ip").args(["-4", "-o", "address", "show", "docker0"]));
        let mut words = bridge.split(&[' ', '/']).skip_while(|word| *word != "inet").skip(1);
        let address = words.next().expect("the default bridge has an address").to_owned();
        let home = tempfile::tempdir().expect("a directory");
        let server = Self { address, port: free_port(), home, bin };
        succeed(Command::new("chown").arg("postgres").arg(server.home.path()));
        let data = server.data();
        server.run("initdb", &["--pgdata", &data, "--auth-local", "trust", "--no-sync"]);
        let file = server.home.path().join("data/pg_hba.conf");
        let text = fs::read_to_string(&file).expect("rules");
        let mut options = format!(
            "-p {} -c listen_addresses={} -c unix_socket_directories={}",
            server.port,
            server.address,
            server.home.path().display()
        );
        let rule = match tls {
            Tls::None => "host",
            Tls::Required => {
                server.make_certificate();
                options.push_str(" -c ssl=on");
                "hostssl"
            }
        };
        fs::write(&file, format!("{text}{rule} all all all scram-sha-256\n")).expect("rules");
        let log = server.home.path().join("log").display().to_string();
        server.run("pg_ctl", &["--pgdata", &data, "--log", &log, "-o", &options, "-w", "start"]);
        listens(&server.address, server.port);
        let password = PASSWORD.replace('\'', "''");
        server.ask("postgres", &format!("CREATE ROLE payram LOGIN CREATEDB PASSWORD '{password}'"));
        server.ask("postgres", "CREATE DATABASE payram OWNER payram");
        server
    }

    /// A shop whose application reaches it at this port, its own or a pooler's; what the test reads
    /// of it goes to the server itself.
    pub fn shop(&self, shop: WorldBuilder, port: u16) -> WorldBuilder {
        shop.env("POSTGRES_HOST", &self.address)
            .env("POSTGRES_PORT", &port.to_string())
            .env("PGHOST", &self.address)
            .env("PGPORT", &self.port.to_string())
            .env("PGUSER", "payram")
            .env("PGPASSWORD", PASSWORD)
    }

    /// One session of the application's role at this port, its own or a pooler's.
    pub fn session(&self, port: u16, sql: &str) {
        succeed(
            Command::new(self.bin.join("psql"))
                .args(["-XqAt", "-h", &self.address, "-p", &port.to_string(), "-U", "payram"])
                .args(["-d", "payram", "-c", sql])
                .env("PGPASSWORD", PASSWORD),
        );
    }

    /// What its keeper is answered.
    pub fn ask(&self, database: &str, sql: &str) -> String {
        let answered = Command::new("setpriv")
            .args(AS_POSTGRES)
            .arg(self.bin.join("psql"))
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-h"])
            .arg(self.home.path())
            .args(["-p", &self.port.to_string(), "-d", database, "-c", sql])
            .output()
            .expect("psql");
        assert!(answered.status.success(), "{sql}: {}", said(&answered));
        String::from_utf8_lossy(&answered.stdout).trim().to_owned()
    }

    fn make_certificate(&self) {
        let at = |name: &str| self.home.path().join("data").join(name);
        succeed(
            Command::new("openssl")
                .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
                .args(["-subj", "/CN=database.example", "-keyout"])
                .arg(at("server.key"))
                .arg("-out")
                .arg(at("server.crt")),
        );
        succeed(Command::new("chmod").arg("0600").arg(at("server.key")));
        succeed(Command::new("chown").arg("postgres").arg(at("server.key")).arg(at("server.crt")));
    }

    fn data(&self) -> String {
        self.home.path().join("data").display().to_string()
    }

    fn run(&self, program: &str, args: &[&str]) {
        succeed(Command::new("setpriv").args(AS_POSTGRES).arg(self.bin.join(program)).args(args));
    }
}

impl Drop for External {
    fn drop(&mut self) {
        let data = self.data();
        let stop = ["--pgdata", &data, "--mode", "immediate", "stop"];
        let mut command = Command::new("setpriv");
        let ended = command.args(AS_POSTGRES).arg(self.bin.join("pg_ctl")).args(stop).output();
        if !ended.is_ok_and(|output| output.status.success()) {
            eprintln!("the external server is not ended");
        }
    }
}

/// A server in a container of its own, in a network of its own, where it is called `db`.
pub struct Neighbour {
    /// The network's name.
    pub network: String,
    name: String,
}

impl Neighbour {
    /// Starts it on an image of the stand-in, and waits until it answers.
    pub fn start(image: &str) -> Self {
        let unique = uuid::Uuid::now_v7().simple().to_string();
        let name = format!("payram-test-db-{unique}");
        let neighbour = Self { network: format!("payram-test-net-{unique}"), name };
        let docker = || Command::new("docker");
        succeed(docker().args(["network", "create", &neighbour.network]));
        let script = "install -d -o postgres -g postgres -m 2775 /run/postgresql
            /opt/payram/make-database /srv/db/data
            echo \"listen_addresses = '*'\" >>/srv/db/data/postgresql.conf
            echo 'host all all all scram-sha-256' >>/srv/db/data/pg_hba.conf
            exec setpriv --reuid=postgres --regid=postgres --init-groups \\
                /usr/lib/postgresql/*/bin/postgres -D /srv/db/data";
        succeed(
            docker()
                .args(["run", "--detach", "--name", &neighbour.name])
                .args(["--network", &neighbour.network, "--network-alias", "db"])
                .args(["--env", "POSTGRES_PASSWORD", "--entrypoint", "bash", image, "-c", script])
                .env("POSTGRES_PASSWORD", PASSWORD),
        );
        wait_until("the server of the other container answers", START_LIMIT, || {
            let mut ask = neighbour.psql("payram", "SELECT 1");
            ask.output().is_ok_and(|answer| answer.status.success()).then_some(())
        });
        neighbour
    }

    /// A shop in its network, whose application calls it by its name there.
    pub fn shop(&self, shop: WorldBuilder) -> WorldBuilder {
        shop.run_args(["--network", &self.network])
            .env("POSTGRES_HOST", "db")
            .env("PGHOST", "db")
            .env("PGUSER", "payram")
            .env("PGPASSWORD", PASSWORD)
    }

    /// What its keeper is answered.
    pub fn ask(&self, database: &str, sql: &str) -> String {
        output(&mut self.psql(database, sql))
    }

    fn psql(&self, database: &str, sql: &str) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", "--user", "postgres", &self.name, "psql", "-XqAt"]);
        command.args(["-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]);
        command
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        for args in [
            ["rm", "--force", "--volumes", &self.name].as_slice(),
            &["network", "rm", &self.network],
        ] {
            let removed = Command::new("docker").args(args).output();
            if !removed.is_ok_and(|output| output.status.success()) {
                eprintln!("docker {args:?} failed");
            }
        }
    }
}

/// What a pooler gives to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// A connection as long as the client stays, cleaned up afterwards.
    Session,
    /// One for each transaction, which the next client gets as it is.
    Transaction,
}

/// Which databases a pooler lets its clients reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Any of the server's.
    All,
    /// The application's alone.
    One,
}

/// pgbouncer in front of a server, at the same address.
pub struct Pooler {
    /// Its port.
    pub port: u16,
    child: Child,
    _home: tempfile::TempDir,
}

impl Pooler {
    /// Starts it, and waits until it listens.
    pub fn start(server: &External, pool: Pool, reach: Reach) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let (at, to) = (&server.address, server.port);
        let databases = match reach {
            Reach::All => format!("* = host={at} port={to}"),
            Reach::One => format!("payram = host={at} port={to}"),
        };
        let mode = match pool {
            Pool::Session => "session",
            Pool::Transaction => "transaction",
        };
        let users = home.path().join("users");
        let password = PASSWORD.replace('"', "\"\"");
        fs::write(&users, format!("\"payram\" \"{password}\"\n")).expect("a file");
        let configuration = home.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n{databases}\n[pgbouncer]\nlisten_addr = {at}\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\n\
             pool_mode = {mode}\nlogfile = {}\ndefault_pool_size = 10\n",
            users.display(),
            home.path().join("log").display()
        );
        fs::write(&configuration, text).expect("a configuration");
        succeed(Command::new("chown").arg("-R").arg("postgres").arg(home.path()));
        let child = Command::new("setpriv")
            .args(AS_POSTGRES)
            .arg("/usr/sbin/pgbouncer")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer starts");
        listens(at, port);
        Self { port, child, _home: home }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // It may have ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn listens(address: &str, port: u16) {
    wait_until(&format!("{address}:{port} listens"), START_LIMIT, || {
        TcpStream::connect((address, port)).ok().map(drop)
    });
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs a command to its good end.
///
/// # Panics
/// With what it said otherwise.
pub fn succeed(command: &mut Command) {
    // A server that is left running must not hold this command's pipes.
    let output = tempfile::tempfile().expect("a file");
    let status = command
        .stdout(output.try_clone().expect("a second handle"))
        .stderr(output.try_clone().expect("a second handle"))
        .status();
    let said = || {
        let (mut file, mut text) = (&output, String::new());
        file.rewind().and_then(|()| file.read_to_string(&mut text)).map(|_| text)
    };
    assert!(status.is_ok_and(|status| status.success()), "{command:?}: {:?}", said());
}
