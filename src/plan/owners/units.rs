//! Systemd units whose commands act on the container: of the system, of users, transient ones.
//!
//! Called by [`super::look`], on a thread of its own. What counts is what is written in
//! `Exec…=` lines, in drop-ins over them, and in the scripts that they run. Where systemd runs it is
//! asked for each unit that was found whether it is enabled or active: one that is neither does
//! nothing by itself. Reads files and starts `systemctl show`; changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::commands::{self, ANYTHING, Command, Verb, Wanted};
use super::scripts;

/// Where units of the system lie, the first wins (systemd.unit(5), "Unit File Load Path").
const SYSTEM: [&str; 8] = [
    "etc/systemd/system",
    "run/systemd/system",
    "run/systemd/transient",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "etc/systemd/user",
];

/// Where a user's own units lie, below his home.
const OF_USERS: [&str; 3] =
    [".config/systemd/user", ".local/share/systemd/user", ".config/systemd/user.control"];

/// Directories of users that are in no table of users.
const HOMES: [&str; 2] = ["root", "home"];

/// A unit that acts on the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// `payram.service`
    pub name: String,
    pub file: PathBuf,
    /// Whose it is, when it is a user's; the home's last part.
    pub user: Option<String>,
    /// Whether it would act during an upgrade, or bring another image back.
    pub acts: bool,
    /// What its commands do, for a sentence.
    pub does: String,
}

/// All units below this root (`/`) that act on the container.
pub(super) fn find(root: &Path, wanted: &Wanted) -> Vec<Unit> {
    let mut found = Vec::new();
    let system: Vec<PathBuf> = SYSTEM.iter().map(|place| root.join(place)).collect();
    found.extend(in_places(root, &system, None, wanted));
    for home in homes(root) {
        let places: Vec<PathBuf> = OF_USERS.iter().map(|place| home.join(place)).collect();
        let user = home.file_name().map(|name| name.to_string_lossy().into_owned());
        found.extend(in_places(root, &places, user, wanted));
    }
    found
}

/// Homes from the table of users, and what lies where homes usually are.
pub(super) fn homes(root: &Path) -> BTreeSet<PathBuf> {
    let table = std::fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
    let named = table.lines().filter_map(|line| line.split(':').nth(5));
    let named = named.filter(|home| home.len() > 1 && home.starts_with('/'));
    let mut homes: BTreeSet<PathBuf> =
        named.map(|home| root.join(home.trim_start_matches('/'))).collect();
    let [own, others] = HOMES;
    homes.insert(root.join(own));
    let others = std::fs::read_dir(root.join(others)).into_iter().flatten().flatten();
    homes.extend(others.map(|entry| entry.path()));
    homes
}

fn in_places(root: &Path, places: &[PathBuf], user: Option<String>, wanted: &Wanted) -> Vec<Unit> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for place in places {
        let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort();
        for file in files {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
            let Some(name) = name.filter(|name| name.ends_with(".service")) else { continue };
            // The same unit below, which this one covers; masked by a link to nothing.
            if !seen.insert(name.clone()) {
                continue;
            }
            let Some(text) = scripts::text(&file) else { continue };
            let mut texts = vec![text];
            texts.extend(drop_ins(places, &name));
            let unit = Parsed::of(&texts, &name, root);
            found.extend(unit.judged(root, &name, &file, user.clone(), wanted));
        }
    }
    found
}

fn drop_ins(places: &[PathBuf], name: &str) -> Vec<String> {
    let directories = places.iter().map(|place| place.join(format!("{name}.d")));
    let entries = directories.filter_map(|directory| std::fs::read_dir(directory).ok());
    let mut files: Vec<PathBuf> = entries.flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "conf"));
    files.sort();
    files.iter().filter_map(|file| scripts::text(file)).collect()
}

/// A unit file, as far as it matters here.
#[derive(Default)]
struct Parsed {
    /// By their keys, in order: an empty one takes back those before it.
    commands: Vec<(String, String)>,
    variables: BTreeMap<String, String>,
    directory: Option<String>,
    restarts: bool,
    is_oneshot: bool,
}

impl Parsed {
    fn of(texts: &[String], name: &str, root: &Path) -> Self {
        let mut unit = Self::default();
        for text in texts {
            let joined = text.replace("\\\n", " ");
            for line in joined.lines().map(str::trim) {
                if line.starts_with(['#', ';', '[']) {
                    continue;
                }
                if let Some((key, value)) = line.split_once('=') {
                    unit.set(key.trim(), &specified(value.trim(), name), root);
                }
            }
        }
        unit
    }

    fn set(&mut self, key: &str, value: &str, root: &Path) {
        match key {
            "Environment" => {
                for word in value.split_whitespace() {
                    let word = word.trim_matches(['"', '\'']);
                    if let Some((name, value)) = word.split_once('=') {
                        self.variables.insert(name.to_owned(), value.to_owned());
                    }
                }
            }
            "EnvironmentFile" => {
                let file = value.trim_start_matches('-').trim_start_matches('/');
                let text = scripts::text(&root.join(file)).unwrap_or_default();
                for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
                    let value = value.trim().trim_matches(['"', '\'']);
                    self.variables.insert(name.trim().to_owned(), value.to_owned());
                }
            }
            "WorkingDirectory" => self.directory = Some(value.trim_start_matches('-').to_owned()),
            "Restart" => self.restarts = value != "no",
            "Type" => self.is_oneshot = value == "oneshot",
            exec if exec.starts_with("Exec") => match value.is_empty() {
                true => self.commands.retain(|(key, _)| key != exec),
                false => {
                    let value = value.trim_start_matches(['-', '@', ':', '+', '!', '|']);
                    self.commands.push((exec.to_owned(), value.to_owned()));
                }
            },
            _ => {}
        }
    }

    fn judged(
        &self,
        root: &Path,
        name: &str,
        file: &Path,
        user: Option<String>,
        wanted: &Wanted,
    ) -> Option<Unit> {
        let mut verbs: Vec<(String, Verb)> = Vec::new();
        for (key, line) in &self.commands {
            let mut found = commands::read(line, &self.variables);
            let inside = scripts::commands(root, &found.scripts, &self.variables);
            found.commands.extend(inside);
            let directory = self.directory.as_deref();
            let ours = found.commands.iter().filter(|one| one.is_about(wanted, directory));
            verbs.extend(ours.map(|one: &Command| (key.clone(), one.verb)));
        }
        if verbs.is_empty() {
            return None;
        }
        let acts = verbs.iter().any(|(key, verb)| match verb {
            Verb::Make | Verb::Hold | Verb::Remove => true,
            // Beside a unit that ends at once nothing starts it again but the next boot.
            Verb::Start => !self.is_oneshot && (self.restarts || key == "ExecStop"),
            Verb::Stop => false,
        });
        let does: Vec<String> = verbs.iter().map(|(key, verb)| said(key, *verb)).collect();
        let does = deduplicated(does).join(", ");
        Some(Unit { name: name.to_owned(), file: file.to_owned(), user, acts, does })
    }
}

fn said(key: &str, verb: Verb) -> String {
    let what = match verb {
        Verb::Make => "makes it",
        Verb::Remove => "removes it",
        Verb::Hold => "starts it and waits for its end",
        Verb::Start => "starts it",
        Verb::Stop => "stops it",
    };
    format!("{key} {what}")
}

fn deduplicated(all: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    all.into_iter().filter(|one| seen.insert(one.clone())).collect()
}

/// A value with the specifiers that a name may hold (systemd.unit(5), "Specifiers").
fn specified(value: &str, unit: &str) -> String {
    let stem = unit.trim_end_matches(".service");
    let prefix = stem.split('@').next().unwrap_or(stem);
    let instance = match stem.split_once('@') {
        Some((_, instance)) if !instance.is_empty() => instance.to_owned(),
        Some(_) => ANYTHING.to_string(),
        None => String::new(),
    };
    let mut filled = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            filled.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => filled.push_str(unit),
            Some('N') => filled.push_str(stem),
            Some('p' | 'P') => filled.push_str(prefix),
            Some('i' | 'I') => filled.push_str(&instance),
            Some('j' | 'J') => filled.push_str(prefix.rsplit('-').next().unwrap_or(prefix)),
            Some('%') => filled.push('%'),
            Some(other) => filled.extend(['%', other]),
            None => filled.push('%'),
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> Wanted {
        Wanted { name: "payram".into(), repository: "payramapp/payram".into(), ..Wanted::default() }
    }

    /// The units of a host with these files.
    fn found(files: &[(&str, &str)]) -> Vec<(String, bool)> {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a place")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        }
        let units = find(root.path(), &shop());
        units.into_iter().map(|unit| (unit.name, unit.acts)).collect()
    }

    const RUNS: &str = "[Service]\nExecStart=/usr/bin/docker run --rm --name payram p:latest\n";

    #[test]
    fn a_unit_that_makes_the_container_acts_wherever_it_lies() {
        for place in [
            "etc/systemd/system/shop.service",
            "run/systemd/transient/shop.service",
            "usr/lib/systemd/system/shop.service",
            "root/.config/systemd/user/shop.service",
            "home/merchant/.config/systemd/user/shop.service",
            "etc/systemd/user/shop.service",
        ] {
            assert_eq!(found(&[(place, RUNS)]), [("shop.service".to_owned(), true)], "{place}");
        }
        let passwd = ("etc/passwd", "shop:x:9:9::/srv/shop:/bin/sh\n");
        let unit = ("srv/shop/.config/systemd/user/x.service", RUNS);
        assert_eq!(found(&[passwd, unit]).len(), 1);
    }

    #[test]
    fn every_way_to_name_the_container_in_a_unit_is_read() {
        let named = |name: &str, text: &str| {
            let place = format!("etc/systemd/system/{name}");
            found(&[(&place, text)])
        };
        for (name, text) in [
            ("payram.service", "ExecStart=-/usr/bin/docker start -a %N\n"),
            ("payram.service", "ExecStartPre=-/usr/bin/docker rm -f %p\n"),
            ("docker-payram.service", "ExecStart=/bin/sh -c 'docker run --name %j x'\n"),
            ("a.service", "Environment=NAME=payram\nExecStart=docker run --name ${NAME} x\n"),
            ("a.service", "ExecStart=/usr/bin/docker run \\\n  --rm \\\n  --name payram x\n"),
            ("a.service", "Restart=always\nExecStart=/usr/bin/docker start payram\n"),
            ("a.service", "ExecStart=/bin/true\nExecStopPost=/usr/bin/docker rm -f payram\n"),
            ("shop@.service", "ExecStart=docker run --name pay%i x\n"),
        ] {
            assert_eq!(named(name, text), [(name.to_owned(), true)], "{text}");
        }
        let file = ("etc/shop.env", "NAME=payram\n");
        let unit = (
            "etc/systemd/system/a.service",
            "EnvironmentFile=-/etc/shop.env\nExecStart=docker run --name $NAME x\n",
        );
        assert_eq!(found(&[file, unit]).len(), 1);
    }

    #[test]
    fn the_script_that_a_unit_runs_is_read_too() {
        let script = ("opt/shop/start.sh", "#!/bin/sh\nexec docker run --name payram x\n");
        for line in ["/opt/shop/start.sh", "/bin/bash /opt/shop/start.sh"] {
            let text = format!("[Service]\nExecStart={line}\n");
            let unit = ("etc/systemd/system/a.service", text.as_str());
            assert_eq!(found(&[script, unit]), [("a.service".to_owned(), true)], "{line}");
        }
    }

    #[test]
    fn a_unit_that_only_stops_or_starts_at_boot_is_told_and_does_not_act() {
        for text in [
            "Type=oneshot\nExecStart=/usr/bin/docker restart payram\n",
            "Type=oneshot\nExecStart=/usr/bin/docker start payram\n",
        ] {
            let unit = ("etc/systemd/system/a.service", text);
            assert_eq!(found(&[unit]), [("a.service".to_owned(), false)], "{text}");
        }
    }

    #[test]
    fn units_about_others_are_not_found_nor_what_is_covered_or_masked() {
        for text in [
            "ExecStart=/usr/bin/docker run --name other p:latest\n",
            "ExecStart=/usr/bin/docker exec payram pg_dump\n",
            "ExecStart=/usr/bin/docker run --name payram x\nExecStart=\nExecStart=/bin/true\n",
            "Description=docker run --name payram\nExecStart=/usr/local/bin/payram-updater serve\n",
        ] {
            assert_eq!(found(&[("etc/systemd/system/a.service", text)]), [], "{text}");
        }
        let over = ("etc/systemd/system/a.service", "ExecStart=/bin/true\n");
        assert_eq!(found(&[over, ("usr/lib/systemd/system/a.service", RUNS)]), []);
        let drop_in = ("etc/systemd/system/a.service.d/x.conf", RUNS);
        assert_eq!(found(&[over, drop_in]).len(), 1);
    }
}
