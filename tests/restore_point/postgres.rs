//! A real server writes while it is copied; the copy is a database with every row.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use payram_updater::restore_point::{
    Cancel, finish, first_difference, pre_copy, restore, survey, verify,
};

/// Where the server's programs are, and whom they run as: root may not.
struct Postgres {
    programs: PathBuf,
    user: Option<(u32, u32)>,
}

fn postgres() -> Option<Postgres> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut places: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    places.extend(std::env::split_paths(&path));
    let has_all = |place: &PathBuf| {
        ["initdb", "pg_ctl", "pgbench", "psql", "pg_checksums"]
            .iter()
            .all(|program| place.join(program).is_file())
    };
    let Some(programs) = places.into_iter().find(has_all) else {
        let required = std::env::var("PAYRAM_TEST_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|word| word == "postgres"), "postgres is required");
        println!("skipped: needs postgres");
        return None;
    };
    let user = rustix::process::geteuid().is_root().then(|| {
        let passwd = fs::read_to_string("/etc/passwd").expect("users");
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| {
                let line = passwd.lines().find(|line| line.starts_with(&format!("{name}:")))?;
                let mut ids = line.split(':').skip(2).map(|id| id.parse().expect("a number"));
                Some((ids.next()?, ids.next()?))
            })
            .expect("a user that is not root")
    });
    Some(Postgres { programs, user })
}

impl Postgres {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        // To a file: a server that `pg_ctl` starts would hold a pipe open.
        let output = tempfile::tempfile().expect("a file");
        let mut command = self.command(program);
        command.args(arguments).stdout(output.try_clone().expect("a file"));
        command.stderr(output.try_clone().expect("a file"));
        let status = command.status().expect("runs");
        let mut output = output;
        std::io::Seek::rewind(&mut output).expect("rewound");
        let text = std::io::read_to_string(output).expect("text");
        assert!(status.success(), "{program} {arguments:?}: {text}");
        text
    }

    fn start(&self, data: &Path, sockets: &Path) {
        let options = format!("-c listen_addresses='' -c fsync=off -k {}", sockets.display());
        let log = sockets.join("log");
        self.run("pg_ctl", &["-D", text(data), "-w", "-l", text(&log), "-o", &options, "start"]);
    }

    fn stop(&self, data: &Path, mode: &str) {
        self.run("pg_ctl", &["-D", text(data), "-w", "-m", mode, "stop"]);
    }

    fn bench(&self, sockets: &Path) -> Child {
        self.command("pgbench")
            .args(["-h", text(sockets), "-n", "-c", "4", "-T", "120", "postgres"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("runs")
    }

    fn totals(&self, sockets: &Path) -> String {
        let sql = "SELECT (SELECT count(*) FROM pgbench_history),
                          (SELECT sum(delta) FROM pgbench_history),
                          (SELECT sum(abalance) FROM pgbench_accounts),
                          (SELECT sum(bbalance) FROM pgbench_branches),
                          (SELECT count(*) FROM pgbench_accounts)";
        self.run("psql", &["-h", text(sockets), "-Atc", sql, "postgres"]).trim().to_owned()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Stops what a failed test leaves running.
struct Stopped<'a>(&'a Postgres, Vec<PathBuf>);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        for data in self.1.iter().filter(|data| data.join("postmaster.pid").exists()) {
            let mut stop = self.0.command("pg_ctl");
            let _ = stop.args(["-D", text(data), "-w", "-m", "immediate", "stop"]).output();
        }
    }
}

#[test]
fn a_database_that_was_written_to_while_it_was_copied_comes_back_with_every_row() {
    let Some(postgres) = postgres() else { return };
    for stop in ["fast", "immediate"] {
        let place = tempfile::tempdir().expect("a directory");
        let (data, copy, failed) = (
            place.path().join("data"),
            place.path().join(".data.payram-restore-0198"),
            place.path().join("data.failed"),
        );
        let sockets = place.path().join("sockets");
        fs::create_dir(&sockets).expect("made");
        if let Some((uid, gid)) = postgres.user {
            for path in [place.path(), &sockets] {
                chown(path, Some(uid), Some(gid)).expect("owned");
            }
        }
        let _stopped = Stopped(&postgres, vec![data.clone(), copy.clone()]);
        postgres.run("initdb", &["-D", text(&data), "-k", "-A", "trust", "--no-sync"]);
        postgres.start(&data, &sockets);
        postgres.run("pgbench", &["-h", text(&sockets), "-i", "-q", "-s", "5", "postgres"]);

        let mut bench = postgres.bench(&sockets);
        let never = Cancel::default();
        let first = pre_copy(&data, &copy, &mut |_| {}, &never).expect("a first pass");
        let again = pre_copy(&data, &copy, &mut |_| {}, &never).expect("a second first pass");
        bench.kill().expect("stopped");
        bench.wait().expect("ended");
        postgres.stop(&data, stop);
        let leaves_its_lock = stop == "immediate";
        if leaves_its_lock {
            // As SIGKILL of a whole container leaves it.
            fs::write(data.join("postmaster.pid"), "1\n").expect("written");
        }
        let last = finish(&data, &copy, &mut |_| {}, &never).expect("a second pass");
        println!(
            "{stop}: {} bytes seen; copied {} and {} while it ran, {} after it stopped ({} compared)",
            first.bytes_seen,
            first.bytes_copied + first.bytes_shared,
            again.bytes_copied + again.bytes_shared,
            last.bytes_copied + last.bytes_shared,
            last.bytes_compared
        );
        assert_eq!(last.notes.len(), usize::from(leaves_its_lock), "{:?}", last.notes);
        let found = survey(&data).expect("a survey");
        assert_eq!((last.files, last.bytes), (found.files, found.bytes));
        assert!(found.postgres_major >= 9);
        verify(&copy, Some(&last.manifest_sha256), &mut |_| {}, &never).expect("whole");
        assert_eq!(first_difference(&data, &copy).expect("looks"), None);
        let _ = fs::remove_file(data.join("postmaster.pid"));
        if stop == "fast" {
            let checked = postgres.run("pg_checksums", &["--check", "-D", text(&copy)]);
            assert!(checked.contains("Bad checksums:  0"), "{checked}");
        }

        // What was there, by the source's own server; then a failed version's writes.
        postgres.start(&data, &sockets);
        let rows = postgres.totals(&sockets);
        postgres.run("psql", &["-h", text(&sockets), "-c", "DROP TABLE pgbench_tellers"]);
        postgres.stop(&data, "fast");
        let touched = first_difference(&data, &copy).expect("looks");
        assert!(touched.is_some(), "a server ran in it");

        restore(&data, &copy, &failed).expect("put back");
        postgres.start(&data, &sockets);
        assert_eq!(postgres.totals(&sockets), rows, "{stop}");
        postgres.run("psql", &["-h", text(&sockets), "-c", "SELECT count(*) FROM pgbench_tellers"]);
        if postgres.programs.join("pg_amcheck").is_file() {
            postgres.run("pg_amcheck", &["-h", text(&sockets), "--install-missing", "postgres"]);
        }
        postgres.stop(&data, "fast");
        assert!(failed.join("PG_VERSION").is_file(), "the failed one is kept");
    }
}
