//! The installer, from a release on loopback into directories of its own: a mount namespace puts
//! them over the host's. Whatever goes wrong, and wherever it is interrupted, the host has either
//! the whole of it or what it had before.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sha2::{Digest, Sha256};
use support::{is_full, require};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/setup_payram_updater.sh");
const PROGRAM: &str = "usr/local/bin/payram-updater";
const SETTINGS: &str = "etc/payram/updater.env";
const UNIT: &str = "etc/systemd/system/payram-updater.service";
const STATE: &str = "var/lib/payram-updater";

/// Says `x86_64` or what else is wanted, and keeps a list of what systemd was asked.
const UNAME: &str =
    "#!/bin/sh\ncase $1 in -s) echo Linux ;; *) echo ${FAKE_MACHINE:-x86_64} ;; esac\n";
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$*" >>"$FAKE_LOG"
case "$1 $FAKE_SYSTEMD" in
"is-active running") exit 0 ;; "is-active "*) exit 3 ;;
"restart broken") exit 1 ;;
esac
"#;
/// One container that can't reach the updater, or whatever FAKE_REACH says.
const DOCKER: &str = r#"#!/bin/sh
case $1 in
ps) echo shop payramapp/payram:1.9.6 ;;
inspect) echo bridge 127.0.0.1 ;;
network) echo 172.17.0.0/16 ;;
exec) echo "$FAKE_REACH" ;;
*) exit 1 ;;
esac
"#;

/// A host of the test's own.
struct Host {
    root: tempfile::TempDir,
    environment: BTreeMap<String, String>,
}

impl Host {
    /// None where such a host can't be made.
    fn new() -> Option<Self> {
        if !require("root") {
            return None;
        }
        let host = Self { root: tempfile::tempdir().expect("a directory"), environment: [].into() };
        for directory in ["usr/local/bin", "var/lib", "run/systemd/system", "tmp", "fake"] {
            fs::create_dir_all(host.at(directory)).expect("a directory");
        }
        let copied = Command::new("cp").args(["-a", "/etc"]).arg(host.at("etc")).status();
        assert!(copied.expect("cp").success());
        fs::remove_dir_all(host.at("etc/payram")).ok();
        fs::create_dir_all(host.at("etc/systemd/system")).expect("a directory");
        host.fake("uname", UNAME);
        host.fake("systemctl", SYSTEMCTL);
        host.fake("sleep", "#!/bin/sh\n");
        let listed = ["policy.json", "manifest.json"].map(|name| host.path(name));
        Some(
            host.with("POLICY_URL", &listed[0])
                .with("RUNTIME_MANIFEST_URL", &listed[1])
                .with("FAKE_SYSTEMD", "stopped"),
        )
    }

    fn with(mut self, key: &str, value: &str) -> Self {
        self.environment.insert(key.into(), value.into());
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.environment.remove(key);
        self
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn path(&self, path: &str) -> String {
        self.at(path).display().to_string()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    fn fake(&self, name: &str, text: &str) {
        self.write(&format!("fake/{name}"), text);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.at(&format!("fake/{name}")), mode).expect("a mode");
    }

    /// The script in bash, with this host's directories in the place of the real ones.
    fn bash(&self, arguments: &[&str]) -> Output {
        let binds: String = ["usr/local/bin", "etc", "var/lib", "run"]
            .map(|path| format!("mount --bind {} /{path} && ", self.path(path)))
            .concat();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(format!("{binds} exec bash \"$@\"")).arg("sh").args(arguments);
        command.env_clear().envs(&self.environment).current_dir("/");
        command.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", self.path("fake")));
        command.env("TMPDIR", self.at("tmp")).env("FAKE_LOG", self.at("systemctl.log"));
        command.stdin(Stdio::null()).output().expect("unshare starts")
    }

    fn install(&self) -> Output {
        self.bash(&[SCRIPT])
    }

    /// What systemd was asked.
    fn asked(&self) -> String {
        fs::read_to_string(self.at("systemctl.log")).unwrap_or_default()
    }

    /// Everything of ours on this host, with its content: what must be there or not.
    fn ours(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for top in
            ["usr/local/bin", "etc/payram", "etc/systemd/system", "var/lib", "run/payram-updater"]
        {
            collect(&self.at(top), self.root.path(), &mut found);
        }
        found.retain(|path, _| path.contains("payram"));
        found
    }
}

fn collect(path: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
    let Ok(metadata) = path.symlink_metadata() else { return };
    let name = path.strip_prefix(root).expect("below").display().to_string();
    if metadata.is_dir() {
        for entry in fs::read_dir(path).expect("a directory").flatten() {
            collect(&entry.path(), root, found);
        }
        found.insert(name, "a directory".into());
    } else {
        found.insert(name, String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into());
    }
}

/// A program that is as small as a checksum of it is quick, and does what the real one does.
fn program(note: &str) -> Vec<u8> {
    let real = env!("CARGO_BIN_EXE_payram-updater");
    format!("#!/bin/sh\n# {note}\nexec '{real}' \"$@\"\n").into_bytes()
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A release on loopback: files by their path, each perhaps cut off in the middle. Ends with the
/// test's process.
fn serve(files: Vec<(&'static str, Vec<u8>, bool)>) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut asked = String::new();
            let mut lines = BufReader::new(stream.try_clone().expect("a second handle"));
            lines.read_line(&mut asked).ok();
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let path = asked.split(' ').nth(1).unwrap_or_default();
            let answer = match files.iter().find(|(name, _, _)| *name == path) {
                Some((_, body, is_cut)) => {
                    let sent = if *is_cut { body.len() / 2 } else { body.len() };
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                    );
                    [head.as_bytes(), &body[..sent]].concat()
                }
                None => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    .to_vec(),
            };
            stream.write_all(&answer).ok();
        }
    });
    format!("http://{address}")
}

/// A good release of this program; its URL.
fn release(program: &[u8]) -> String {
    let line = format!("{}  payram-updater-linux-amd64\n", sum(program)).into_bytes();
    let base = serve(vec![("/p", program.to_vec(), false), ("/p.sha256", line, false)]);
    format!("{base}/p")
}

fn text(output: &Output) -> String {
    let parts = [&output.stdout, &output.stderr].map(|part| String::from_utf8_lossy(part));
    parts.concat()
}

#[track_caller]
fn assert_end(output: &Output, code: i32, parts: &[&str]) {
    let text = text(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} in:\n{text}"));
}

#[test]
fn a_fresh_install_is_whole_and_for_root_alone_and_the_second_one_changes_nothing() {
    let Some(host) = Host::new() else { return };
    let program = program("one");
    let host = host.with("PAYRAM_UPDATER_DOWNLOAD_URL", &release(&program));
    assert_end(&host.install(), 0, &["Done."]);
    assert_eq!(host.read(PROGRAM).as_bytes(), program);
    assert_eq!(host.read(UNIT), include_str!("../packaging/systemd/payram-updater.service"));
    let settings = host.read(SETTINGS);
    assert!(settings.contains(&format!("\nPOLICY_URL=\"{}\"\n", host.path("policy.json"))));
    for (path, mode) in [(SETTINGS, 0o600), (STATE, 0o700), (PROGRAM, 0o755)] {
        let found = fs::metadata(host.at(path)).expect(path).permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path}");
    }
    let asked = host.asked();
    for part in ["daemon-reload", "enable --quiet payram-updater.service", "restart payram"] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    let before = host.ours();
    let again = host.install();
    assert_end(&again, 0, &["installed already", "Settings are kept"]);
    assert_eq!(host.ours(), before);
    assert_eq!(fs::read_dir(host.at("tmp")).expect("a directory").count(), 0, "nothing is left");
}

#[test]
fn what_is_not_what_it_should_be_installs_nothing() {
    let Some(mut host) = Host::new() else { return };
    let before = host.ours();
    let good = program("good");
    let elf = [b"\x7fELF\x02\x01\x01".to_vec(), vec![0; 100]].concat();
    let old = b"#!/bin/sh\n[ \"$1\" = version ] && echo payram-updater 0.0.1\n".to_vec();
    let line = |bytes: &[u8]| format!("{} *p\n", sum(bytes)).into_bytes();
    let other = format!("{}  other\n{}  p2\n", sum(&good), sum(&good)).into_bytes();
    let cases = [
        ("wrong checksum", good.clone(), Some(line(b"else")), false, "checksum of"),
        ("no checksum", good.clone(), None, false, "no checksum could be fetched"),
        ("no sum in it", good.clone(), Some(b"<html>".to_vec()), false, "holds no SHA-256"),
        ("sums of others", good.clone(), Some(other), false, "holds no SHA-256"),
        ("truncated", good.clone(), Some(line(&good)), true, "could not be fetched"),
        (
            "wrong architecture",
            elf.clone(),
            Some(line(&elf)),
            false,
            "does not run on this machine",
        ),
        ("older", old.clone(), Some(line(&old)), false, "older than this installer"),
    ];
    for (case, program, checksum, is_cut, said) in cases {
        let mut files = vec![("/p", program, is_cut)];
        files.extend(checksum.map(|checksum| ("/p.sha256", checksum, false)));
        host = host.with("PAYRAM_UPDATER_DOWNLOAD_URL", &format!("{}/p", serve(files)));
        println!("{case}");
        assert_end(&host.install(), 1, &[said, "Nothing was installed"]);
        assert_eq!(host.ours(), before, "{case}");
    }
    host = host.with("PAYRAM_UPDATER_DOWNLOAD_URL", &release(&good));
    for (key, value, code, said) in [
        ("PAYRAM_UPDATER_SHA256", "abc", 2, "64 hexadecimal digits, found 'abc'"),
        ("PAYRAM_UPDATER_SHA256", &sum(b"else"), 1, "checksum of"),
        ("PAYRAM_UPDATER_VERSION", "9.9.9", 1, "version 9.9.9 was asked for"),
        ("FAKE_MACHINE", "riscv64", 1, "there is no payram-updater for riscv64"),
    ] {
        host = host.with(key, value);
        assert_end(&host.install(), code, &[said]);
        assert_eq!(host.ours(), before, "{key}");
        host = host.without(key);
    }
}

#[test]
fn without_what_it_needs_it_says_so_and_installs_nothing() {
    let Some(host) = Host::new() else { return };
    let before = host.ours();
    let host = host.with("PAYRAM_UPDATER_DOWNLOAD_URL", &release(&program("one")));
    // No terminal to ask for the two settings that have no default.
    let host = host.without("POLICY_URL");
    assert_end(&host.install(), 2, &["POLICY_URL", "Nothing was installed"]);
    let host = host.with("POLICY_URL", "ftp://nowhere");
    assert_end(&host.install(), 1, &["POLICY_URL is `ftp://nowhere`"]);
    assert_eq!(host.ours(), before);
    let host = host.with("POLICY_URL", "/policy.json");
    fs::remove_dir_all(host.at("run/systemd")).expect("removed");
    assert_end(&host.install(), 1, &["systemd does not run here", "ENABLE_SERVICE=0"]);
    assert_eq!(host.ours(), before);
    assert_end(&host.bash(&[SCRIPT, "--purge"]), 2, &["knows no '--purge'"]);
    // Where somebody else starts it.
    let host = host.with("ENABLE_SERVICE", "0").with("QUIET", "1");
    let output = host.install();
    assert_end(&output, 0, &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert!(host.at(PROGRAM).exists() && host.at(UNIT).exists());
}

#[test]
fn an_installation_of_the_earlier_tool_is_taken_over() {
    let Some(host) = Host::new() else { return };
    let settings =
        "POLICY_URL=/old/policy.json\nRUNTIME_MANIFEST_URL=/old/m.json\nUPDATER_PORT=3456\n";
    host.write(PROGRAM, "#!/bin/sh\necho the earlier tool\n");
    fs::set_permissions(host.at(PROGRAM), fs::Permissions::from_mode(0o755)).expect("a mode");
    host.write(SETTINGS, settings);
    host.write(UNIT, "[Service]\nExecStart=/usr/local/bin/payram-updater serve\n");
    let kept = ["status.json", "history.jsonl", "updater-config.json", "data/backups/a.sql"];
    for name in kept {
        host.write(&format!("{STATE}/{name}"), &format!("{{\"of\":\"{name}\"}}"));
    }
    let before = host.ours();
    let host = host.with("PAYRAM_UPDATER_DOWNLOAD_URL", &release(&program("new")));
    // A version that does not start gives way to the one before.
    let host = host.with("FAKE_SYSTEMD", "broken");
    host.fake("systemctl", &SYSTEMCTL.replace("\"is-active running\"", "\"is-active broken\""));
    assert_end(&host.install(), 1, &["The one before is put back"]);
    let mut after = host.ours();
    after.remove("etc/payram/payram-updater.service.before");
    assert_eq!(after, before);
    let host = host.with("FAKE_SYSTEMD", "running");
    let words = [
        "Found status.json history.jsonl",
        "updater-config.json",
        "auto-update stays off",
        ".sql backups",
        "Settings are kept",
    ];
    assert_end(&host.install(), 0, &words);
    host.write(&format!("{STATE}/updater-config.json"), "{\"autoUpdateEnabled\": true}");
    assert_end(&host.install(), 0, &["an upgrade may begin at once"]);
    let decided = "{\"of\":\"updater-config.json\"}";
    host.write(&format!("{STATE}/updater-config.json"), decided);
    assert_eq!(host.read(SETTINGS), settings);
    assert!(host.read(PROGRAM).contains("# new"));
    assert!(host.read(UNIT).contains("Type=notify"));
    assert!(!host.read("etc/payram/payram-updater.service.before").contains("Type=notify"));
    for name in kept {
        assert_eq!(host.read(&format!("{STATE}/{name}")), format!("{{\"of\":\"{name}\"}}"));
    }
}

#[test]
fn an_uninstall_leaves_nothing_but_backups_and_a_shops_own_files() {
    let Some(host) = Host::new() else { return };
    let empty = host.ours();
    let host = host.with("PAYRAM_UPDATER_DOWNLOAD_URL", &release(&program("one")));
    assert_end(&host.install(), 0, &[]);
    let dump = format!("{STATE}/data/backups/payram-backup-20260101-000000-1.9.6-to-1.9.7.dump");
    let file = format!("{STATE}/files/job-1/failed/f");
    host.write(&dump, "dump");
    host.write(&file, "a shop's own");
    host.write(&format!("{STATE}/specs/job-1.json"), "{}");
    host.write(&format!("{STATE}/database.json"), "with the password in it");
    assert_end(&host.bash(&[SCRIPT, "--uninstall"]), 2, &["--yes"]);
    assert!(host.at(PROGRAM).exists());
    assert_end(&host.bash(&[SCRIPT, "--uninstall", "--yes"]), 0, &["Kept: ", "is removed"]);
    assert!(host.asked().contains("disable --now --quiet payram-updater.service"));
    let mut left = host.ours();
    left.retain(|_, content| content != "a directory");
    let kept: Vec<&str> = left.keys().map(String::as_str).collect();
    assert_eq!(kept, [dump.as_str(), file.as_str()]);
    assert_end(&host.install(), 0, &[]);
    assert_end(&host.bash(&[SCRIPT, "--uninstall", "--yes", "--remove-backups"]), 0, &[]);
    assert_eq!(host.ours(), empty);
}

/// A program that says this of its last upgrade, and is the real one otherwise.
fn program_with_status(status: &str) -> Vec<u8> {
    let real = String::from_utf8(program("busy")).expect("text");
    let says = format!("[ \"$1\" = status ] && {{ echo '{status}'; exit 0; }}\nexec ");
    real.replace("exec ", &says).into_bytes()
}

#[test]
fn while_an_upgrade_is_not_over_nothing_is_replaced_or_removed() {
    let Some(host) = Host::new() else { return };
    host.write(&format!("{STATE}/journal.db"), "");
    host.write(SETTINGS, "POLICY_URL=/p\nRUNTIME_MANIFEST_URL=/m\n");
    let host = host.with("PAYRAM_UPDATER_DOWNLOAD_URL", &release(&program("next")));
    let cases = [
        (r#"{"active": true}"#, true, "is under way"),
        (r#"{"active": false, "waitsFor": {"who": "operator"}}"#, false, "waits for your decision"),
        (r#"{"probation": {"state": "watching"}}"#, false, "is still watched"),
    ];
    for (status, refuses_install, said) in cases {
        fs::write(host.at(PROGRAM), program_with_status(status)).expect("a program");
        fs::set_permissions(host.at(PROGRAM), fs::Permissions::from_mode(0o755)).expect("a mode");
        let before = host.ours();
        assert_end(&host.bash(&[SCRIPT, "--uninstall", "--yes"]), 1, &[said]);
        if refuses_install {
            assert_end(&host.install(), 1, &[said]);
        }
        assert_eq!(host.ours(), before, "{status}");
    }
}

#[test]
fn a_container_that_does_not_reach_it_is_told_with_the_command_for_its_firewall() {
    let Some(host) = Host::new() else { return };
    host.fake("docker", DOCKER);
    let port = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let number = port.local_addr().expect("an address").port();
    host.write(
        SETTINGS,
        &format!("POLICY_URL=/p\nRUNTIME_MANIFEST_URL=/m\nUPDATER_PORT={number}\n"),
    );
    let mut host = host.with("PAYRAM_UPDATER_DOWNLOAD_URL", &release(&program("one")));
    let mut install = |reach: &str| {
        let fresh = std::mem::replace(&mut host.environment, [].into());
        host.environment = fresh;
        host.environment.insert("FAKE_REACH".into(), reach.into());
        host.install()
    };
    assert_end(&install("yes"), 0, &["shop reaches the updater at http://127.0.0.1:"]);
    assert_end(&install("denied"), 0, &["is not let in", "TARGET_CONTAINER_NAME=shop"]);
    assert_end(&install("unknown"), 0, &["was not tried"]);
    let iptables =
        format!("iptables -I INPUT -s 172.17.0.0/16 -d 127.0.0.1 -p tcp --dport {number}");
    assert_end(&install("no"), 0, &["does not reach", &iptables]);
    for (name, fake, command) in [
        ("firewall-cmd", "#!/bin/sh\n", "firewall-cmd --permanent --add-rich-rule="),
        ("ufw", "#!/bin/sh\necho Status: active\n", "ufw allow proto tcp from 172.17.0.0/16"),
    ] {
        let path = host.at(&format!("fake/{name}"));
        fs::write(&path, fake).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        assert_end(&host.install(), 0, &[command]);
    }
    drop(port);
    assert_end(&host.install(), 0, &["does not listen at"]);
}

/// The script with a signal to itself before its n-th command.
fn interrupted(host: &Host, at: usize, signal: &str) -> Output {
    let trap = format!(
        "set -o functrace; n=0; trap '((++n == {at})) && kill -{signal} $$' DEBUG; source {SCRIPT}"
    );
    host.bash(&["-c", &trap])
}

/// Interrupts at many commands, one after the other, until one is beyond the end.
fn at_every_command(signal: &str, step: usize, mut check: impl FnMut(usize, Output) -> bool) {
    let Some(fresh) = Host::new() else { return };
    let url = release(&program("one"));
    let host = fresh.with("PAYRAM_UPDATER_DOWNLOAD_URL", &url);
    drop(host);
    let mut at = 1 + step / 2;
    let mut rounds = 0;
    loop {
        let host =
            Host::new().expect("made once already").with("PAYRAM_UPDATER_DOWNLOAD_URL", &url);
        let before = host.ours();
        let output = interrupted(&host, at, signal);
        let after = host.ours();
        let is_whole = [PROGRAM, SETTINGS, UNIT].iter().all(|path| after.contains_key(*path));
        let has_ended = output.status.success();
        if signal == "TERM" && !is_whole {
            assert_eq!(after, before, "{signal} at command {at}:\n{}", text(&output));
        }
        // Whatever is there is whole; and the next run makes all of it so.
        for (path, content) in &after {
            if path == PROGRAM {
                assert_eq!(content.as_bytes(), program("one"), "{signal} at command {at}");
            }
            if path == UNIT {
                assert!(content.ends_with("WantedBy=multi-user.target\n"), "{signal} at {at}");
            }
            if path == SETTINGS {
                assert!(content.contains("\n#RESUME=resume\n"), "{signal} at {at}");
            }
        }
        assert_end(&host.install(), 0, &["Done."]);
        let names: Vec<String> = host.ours().into_keys().collect();
        assert!(names.iter().all(|name| !name.contains(".new.")), "{names:?}");
        rounds += 1;
        if !check(at, output) || has_ended {
            println!("{signal}: interrupted at {rounds} commands, the last of them {at}");
            return;
        }
        at += step;
    }
}

#[test]
fn interrupted_at_any_command_it_leaves_all_or_nothing() {
    let step = if is_full() { 3 } else { 70 };
    at_every_command("TERM", step, |_, _| true);
    at_every_command("KILL", step, |_, _| true);
}

#[test]
fn the_script_that_was_cut_off_on_its_way_does_nothing() {
    let Some(host) = Host::new() else { return };
    let host = host.with("PAYRAM_UPDATER_DOWNLOAD_URL", &release(&program("one")));
    let script = fs::read_to_string(SCRIPT).expect("the script");
    let before = host.ours();
    for part in [1, 2, 3, 7, 9] {
        host.write("cut.sh", &script[..script.len() * part / 10]);
        host.bash(&[&host.path("cut.sh")]);
        assert_eq!(host.ours(), before, "{part} tenths");
    }
}

#[test]
fn the_scripts_hold_to_shellcheck() {
    let Ok(found) = Command::new("shellcheck").arg("--version").output() else {
        // Whoever asks for parts of the tests by name has installed what they need.
        assert!(std::env::var_os("PAYRAM_TEST_REQUIRE").is_none(), "shellcheck is missing");
        println!("no shellcheck here: not looked at");
        return;
    };
    assert!(found.status.success());
    for script in [
        "packaging/setup_payram_updater.sh",
        "packaging/release",
        "packaging/sbom",
        "packaging/deb/preinst",
        "packaging/deb/postinst",
        "packaging/deb/prerm",
        "packaging/deb/postrm",
        "tests/run",
        "tests/demo",
        "tests/fixtures/systemd-machine/make",
        ".ci/run",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        let output = Command::new("shellcheck").arg(&path).output().expect("shellcheck");
        assert!(output.status.success(), "{}", text(&output));
    }
}
