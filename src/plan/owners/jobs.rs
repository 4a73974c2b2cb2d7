//! What else starts containers on a host without a unit: loops that run now, crontabs, boot scripts,
//! another supervisor.
//!
//! Called by [`super::look`], on a thread of its own. Of a running shell only a loop without end
//! counts: a script that made the container once is nobody's owner. Reads files and `/proc`.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::commands::{self, Command, Verb, Wanted};
use super::scripts;

/// Shells whose text can be read.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "zsh", "ksh", "busybox"];

/// Tables whose lines begin with five times or a word of their own.
const TABLES: [&str; 2] = ["etc/crontab", "etc/anacrontab"];

/// Directories of such tables.
const TABLE_DIRECTORIES: [&str; 4] =
    ["etc/cron.d", "var/spool/cron/crontabs", "var/spool/cron", "var/spool/cron/tabs"];

/// Directories whose scripts are run at times.
const TIMED: [&str; 4] =
    ["etc/cron.hourly", "etc/cron.daily", "etc/cron.weekly", "etc/cron.monthly"];

/// Files and directories whose scripts are run at boot.
const AT_BOOT: [&str; 4] = ["etc/rc.local", "etc/init.d", "etc/local.d", "etc/rc.d/rc.local"];

/// Where supervisord on the host has its programs, and runit and s6 theirs.
const SUPERVISED: [&str; 5] =
    ["etc/supervisor/conf.d", "etc/supervisord.d", "etc/supervisord.conf", "etc/service", "etc/sv"];

/// Something that acts on the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// What it is: `process 71 (bash)`, `/etc/cron.d/shop line 3`.
    pub name: String,
    pub file: Option<PathBuf>,
    /// Whether it would act during an upgrade, or bring another image back.
    pub acts: bool,
    /// `runs again and again`, `is run by cron`, …
    pub how: &'static str,
    /// Its number, when it is a process.
    pub pid: Option<u32>,
}

/// All below this root (`/`) that act on the container.
pub(super) fn find(root: &Path, wanted: &Wanted) -> Vec<Job> {
    let mut found = loops(root, wanted);
    found.extend(tables(root, wanted));
    for (places, how) in [
        (&TIMED[..], "is run by cron"),
        (&AT_BOOT[..], "is run at boot"),
        (&SUPERVISED[..], "is kept running by a supervisor"),
    ] {
        for file in files(root, places) {
            let Some(text) = scripts::text(&file) else { continue };
            // `command=…` of supervisord.
            let text = text.replace("\ncommand=", "\n");
            let ours = ours(root, &text, wanted);
            found.extend(judged(&ours, how).map(|acts| Job {
                name: shown(root, &file),
                file: Some(file.clone()),
                acts,
                how,
                pid: None,
            }));
        }
    }
    found
}

/// The container's commands in a text and in the scripts that it runs.
fn ours(root: &Path, text: &str, wanted: &Wanted) -> Vec<Command> {
    let variables = BTreeMap::new();
    let found = commands::read(text, &variables);
    let mut all = found.commands;
    all.extend(scripts::commands(root, &found.scripts, &variables));
    all.retain(|one| one.is_about(wanted, None));
    all
}

/// Whether these commands would act; none when there are none.
fn judged(commands: &[Command], how: &str) -> Option<bool> {
    if commands.is_empty() {
        return None;
    }
    let is_at_boot = how == "is run at boot";
    Some(commands.iter().any(|one| match one.verb {
        Verb::Make | Verb::Hold | Verb::Remove => true,
        // At boot it is the container of the name that is started, whichever that is by then.
        Verb::Start => !is_at_boot,
        Verb::Stop => false,
    }))
}

/// Shells that run now and start the container in a loop without end.
fn loops(root: &Path, wanted: &Wanted) -> Vec<Job> {
    let own = std::process::id();
    let entries = std::fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for entry in entries {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let Some(pid) = pid.filter(|pid| *pid != own) else { continue };
        let Some((shell, text, file)) = shell_text(root, &entry.path()) else { continue };
        let ours = ours(root, &text, wanted);
        if ours.iter().any(|one| one.is_looped) {
            found.push(Job {
                name: format!("process {pid} ({shell})"),
                file,
                acts: true,
                how: "runs again and again",
                pid: Some(pid),
            });
        }
    }
    found
}

/// What a process executes, when it is a shell with a text that can be read.
fn shell_text(root: &Path, process: &Path) -> Option<(String, String, Option<PathBuf>)> {
    let line = std::fs::read(process.join("cmdline")).ok()?;
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let word = |at: usize| words.get(at).map(|word| String::from_utf8_lossy(word).into_owned());
    let program = word(0)?;
    let shell = program.trim_start_matches('-').rsplit('/').next()?.to_owned();
    if !SHELLS.contains(&shell.as_str()) {
        return None;
    }
    let mut at = 1;
    while let Some(next) = word(at).filter(|next| next.starts_with(['-', '+'])) {
        if !next.starts_with("--") && next.contains('c') {
            return Some((shell, word(at + 1)?, None));
        }
        at += 1;
    }
    let script = word(at).filter(|script| !script.is_empty())?;
    let path = match script.starts_with('/') {
        true => scripts::below(root, &script),
        false => {
            let directory = std::fs::read_link(process.join("cwd")).ok()?;
            let directory = String::from_utf8_lossy(directory.as_os_str().as_bytes()).into_owned();
            scripts::below(root, &directory).join(script)
        }
    };
    Some((shell, scripts::text(&path)?, Some(path)))
}

/// Lines of crontabs.
fn tables(root: &Path, wanted: &Wanted) -> Vec<Job> {
    let mut found = Vec::new();
    for file in files(root, &[&TABLES[..], &TABLE_DIRECTORIES[..]].concat()) {
        let Some(text) = scripts::text(&file) else { continue };
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with('#') {
                continue;
            }
            let ours = ours(root, line, wanted);
            let at_boot = line.starts_with("@reboot");
            let how = if at_boot { "is run at boot" } else { "is run by cron" };
            found.extend(judged(&ours, how).map(|acts| Job {
                name: format!("{} line {}", shown(root, &file), index + 1),
                file: Some(file.clone()),
                acts,
                how,
                pid: None,
            }));
        }
    }
    found
}

/// The files of these places, and of directories what lies in them.
fn files(root: &Path, places: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for place in places.iter().map(|place| root.join(place)) {
        if !place.is_dir() {
            files.push(place);
            continue;
        }
        let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            // `run` of runit and s6.
            files.push(if path.is_dir() { path.join("run") } else { path });
        }
    }
    files.sort();
    files
}

/// A path as the host has it.
fn shown(root: &Path, path: &Path) -> String {
    let rest = path.strip_prefix(root).unwrap_or(path);
    format!("/{}", rest.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> Wanted {
        Wanted { name: "payram".into(), ..Wanted::default() }
    }

    fn found(files: &[(&str, &str)]) -> Vec<(String, bool)> {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a place")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        }
        find(root.path(), &shop()).into_iter().map(|job| (job.name, job.acts)).collect()
    }

    fn process(line: &str) -> Vec<(String, bool)> {
        found(&[("proc/4000000000/cmdline", line)])
    }

    #[test]
    fn a_shell_that_starts_the_container_in_a_loop_without_end_acts() {
        let acts = [("process 4000000000 (sh)".to_owned(), true)];
        assert_eq!(
            process("/bin/sh\0-c\0while true; do docker run --rm --name payram x; done\0"),
            acts
        );
        assert_eq!(process("sh\0-ec\0while :; do docker start payram; sleep 9; done\0"), acts);
        let script = ("opt/loop", "while sleep 5; do\n docker run --rm --name payram x\ndone\n");
        assert_eq!(found(&[script, ("proc/4000000000/cmdline", "sh\0/opt/loop\0")]), acts);
    }

    #[test]
    fn a_shell_that_made_it_once_or_loops_over_something_else_does_not() {
        for line in [
            "sh\0-c\0docker run --name payram x; while true; do curl localhost; done\0",
            "sh\0-c\0for v in a b; do docker run --name payram x:$v; done\0",
            "sh\0-c\0while true; do docker exec payram true; done\0",
            "docker\0run\0--name\0payram\0x\0",
            "sh\0",
            "",
        ] {
            assert_eq!(process(line), [], "{line:?}");
        }
    }

    #[test]
    fn crontabs_boot_scripts_and_supervisors_are_read() {
        let line = "*/5 * * * * root docker start payram\n";
        assert_eq!(found(&[("etc/cron.d/shop", line)]), [("/etc/cron.d/shop line 1".into(), true)]);
        let of_user = "# m h\n0 4 * * * docker restart payram\n";
        let table = ("var/spool/cron/crontabs/root", of_user);
        assert_eq!(found(&[table]), [("/var/spool/cron/crontabs/root line 2".into(), false)]);
        let script = ("opt/up.sh", "docker rm -f payram\ndocker run -d --name payram x:latest\n");
        let boots = ("etc/crontab", "@reboot root /opt/up.sh\n");
        assert_eq!(found(&[script, boots]), [("/etc/crontab line 1".into(), true)]);
        let starts = ("etc/rc.local", "#!/bin/sh\ndocker start payram\n");
        assert_eq!(found(&[starts]), [("/etc/rc.local".into(), false)]);
        let program =
            ("etc/supervisor/conf.d/p.conf", "[program:p]\ncommand=docker start -a payram\n");
        assert_eq!(found(&[program]), [("/etc/supervisor/conf.d/p.conf".into(), true)]);
        assert_eq!(found(&[("etc/cron.d/backup", "0 1 * * * root docker exec payram x\n")]), []);
    }
}
