//! Which file uses what of which other one, read from its `use` lines and paths.
//!
//! An arrow goes to the file in which the item stands, through re-exports. What a file uses of the
//! one above it (its `mod.rs`, or `x.rs` beside `x/`) is no arrow: a room's parts may use what the
//! room defines for them. Tests inside of files don't count.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Text, texts};

/// A module by its path below the crate.
pub type Module = Vec<String>;

/// The crate's files, and what each uses of others.
pub struct Arrows {
    modules: BTreeSet<Module>,
    /// What a module's `pub use` lines give other names to.
    exports: BTreeMap<Module, BTreeMap<String, Module>>,
    /// From, to, and the items for which.
    pub arrows: BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>>,
}

impl Arrows {
    /// Of `src`.
    pub fn read() -> Self {
        let files: Vec<(Module, String)> = texts(&["src"], &[".rs"])
            .into_iter()
            .filter(|file| !file.path.contains("test"))
            .map(|file| (module(&file), code(&file.text)))
            .collect();
        let modules = files.iter().map(|(module, _)| module.clone()).collect();
        let mut all = Self { modules, exports: BTreeMap::new(), arrows: BTreeMap::new() };
        for (module, code) in &files {
            for (is_public, path, name) in uses(code) {
                if let Some(target) = all.absolute(module, &path).filter(|_| is_public) {
                    all.exports.entry(module.clone()).or_default().insert(name, target);
                }
            }
        }
        for (module, code) in &files {
            all.follow(module, code);
        }
        all
    }

    /// Notes what a file uses.
    fn follow(&mut self, module: &Module, code: &str) {
        let mut named: BTreeMap<String, Module> = BTreeMap::new();
        let mut wanted: Vec<Module> = Vec::new();
        for (is_public, path, name) in uses(code) {
            let Some(target) = self.absolute(module, &path) else { continue };
            // A room's face: not what it works with.
            if is_public && target.starts_with(module) && target.len() > module.len() {
                continue;
            }
            match self.item(&target) {
                Some((found, rest)) if rest.is_empty() => {
                    named.insert(name, found);
                }
                Some(_) => wanted.push(target),
                None => {}
            }
        }
        for child in children(code) {
            let below = [module.clone(), vec![child.clone()]].concat();
            if self.modules.contains(&below) {
                named.insert(child, below);
            }
        }
        for path in paths(&without_uses(code)) {
            let head = path.first().cloned().unwrap_or_default();
            if let Some(target) = named.get(&head) {
                wanted.push([target.clone(), path[1..].to_vec()].concat());
            } else if ["crate", "super", "self"].contains(&head.as_str()) {
                wanted.extend(self.absolute(module, &path));
            }
        }
        for target in wanted {
            let Some((found, rest)) = self.item(&target) else { continue };
            let Some(item) = rest.first() else { continue };
            if !module.starts_with(&found) {
                let to = self.arrows.entry(module.clone()).or_default();
                to.entry(found).or_default().insert(item.clone());
            }
        }
    }

    /// A path of `use` from the crate's root on; none for other crates.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let mut base = module.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => return Some(path[1..].to_vec()),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|word| word == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            first => {
                let below = [base.clone(), vec![first.to_owned()]].concat();
                if !self.modules.contains(&below) {
                    return None;
                }
            }
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// The file in which a path's item stands, and the rest of the path from that item on.
    fn item(&self, path: &[String]) -> Option<(Module, Vec<String>)> {
        let mut path = path.to_vec();
        // Re-exports of re-exports; no more than there are floors.
        for _ in 0..8 {
            let upto = (0..=path.len()).rev().find(|at| self.modules.contains(&path[..*at]))?;
            let (found, rest) = (path[..upto].to_vec(), path[upto..].to_vec());
            let export = rest.first().and_then(|name| self.exports.get(&found)?.get(name));
            match export {
                Some(target) if *target != path => {
                    path = [target.clone(), rest[1..].to_vec()].concat();
                }
                _ => return Some((found, rest)),
            }
        }
        None
    }

    /// Each group of files that use one another, however far around.
    pub fn circles(&self) -> Vec<BTreeSet<Module>> {
        let reach = |from: &Module| {
            let (mut seen, mut ahead) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(next) = ahead.pop() {
                for to in self.arrows.get(&next).into_iter().flat_map(BTreeMap::keys) {
                    if seen.insert(to.clone()) {
                        ahead.push(to.clone());
                    }
                }
            }
            seen
        };
        let reached: BTreeMap<Module, BTreeSet<Module>> =
            self.modules.iter().map(|module| (module.clone(), reach(module))).collect();
        let mut circles: Vec<BTreeSet<Module>> = Vec::new();
        for (module, others) in &reached {
            if !others.contains(module) || circles.iter().any(|circle| circle.contains(module)) {
                continue;
            }
            circles
                .push(others.iter().filter(|it| reached[*it].contains(module)).cloned().collect());
        }
        circles
    }

    /// Which room uses which others; a room is a file or directory right below `src`.
    pub fn rooms(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let room = |module: &Module| module.first().cloned().unwrap_or_default();
        for module in &self.modules {
            rooms.entry(room(module)).or_default();
        }
        for (from, to) in &self.arrows {
            let others = to.keys().map(room).filter(|other| *other != room(from));
            rooms.entry(room(from)).or_default().extend(others);
        }
        rooms
    }
}

fn module(file: &Text) -> Module {
    let path = file.path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Module = path.split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
        parts.pop();
    }
    parts
}

/// A file without its tests, comments and texts.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let text = lines.collect::<Vec<_>>().join("\n").replace("\\\\", "").replace("\\\"", "");
    text.split('"').step_by(2).collect()
}

/// Each `use` of a file: whether it is given on, its path, and the name that it has here.
fn uses(code: &str) -> Vec<(bool, Module, String)> {
    let mut all = Vec::new();
    for statement in code.split(';') {
        let Some(at) = statement.rfind("use ") else { continue };
        let before =
            statement[..at].rsplit(['}', '{', ']', '\n']).next().unwrap_or_default().trim();
        if !before.is_empty() && !before.starts_with("pub") {
            continue;
        }
        for path in spread(&statement[at + 4..]) {
            let (path, name) = path.split_once(" as ").unwrap_or((&path, ""));
            let words: Module = path.split("::").map(|word| word.trim().to_owned()).collect();
            let words = match words.split_last() {
                Some((last, rest)) if last == "self" && !rest.is_empty() => rest.to_vec(),
                _ => words,
            };
            let last = words.last().cloned().unwrap_or_default();
            let name = if name.is_empty() { last } else { name.trim().to_owned() };
            all.push((before.starts_with("pub"), words, name));
        }
    }
    all
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn spread(path: &str) -> Vec<String> {
    let path = path.trim();
    let (Some(open), Some(close)) = (path.find('{'), path.rfind('}')) else {
        return vec![path.to_owned()];
    };
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in path[open + 1..close].chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 {
            parts.push(String::new());
        } else {
            parts.last_mut().expect("one at least").push(c);
        }
    }
    let head = &path[..open];
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| spread(part)).map(|part| format!("{head}{part}")).collect()
}

/// Files below this one that it names with `mod`.
fn children(code: &str) -> Vec<String> {
    let words: Vec<&str> = code.split_whitespace().collect();
    let named = words.windows(2).filter(|pair| pair[0] == "mod" && pair[1].ends_with(';'));
    named.map(|pair| pair[1].trim_end_matches(';').to_owned()).collect()
}

fn without_uses(code: &str) -> String {
    code.split(';').filter(|part| !part.contains("use ")).collect::<Vec<_>>().join(";")
}

/// Every `a::b::c` of a text.
fn paths(code: &str) -> Vec<Module> {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c: char| !is_inside(c)).filter(|word| word.contains("::"));
    let paths = words.map(|word| word.split("::").map(str::to_owned).collect::<Module>());
    paths.filter(|path| path.iter().all(|word| !word.is_empty())).collect()
}

#[test]
fn a_line_of_use_is_read_as_the_compiler_reads_it() {
    let text =
        "mod b;\npub use b::B;\nuse super::{c::{D, self}, E as F};\nfn f() { c::g(\"use x;\") }";
    let found = uses(&code(text));
    let shown: Vec<String> =
        found.iter().map(|(is, path, name)| format!("{is} {} {name}", path.join("::"))).collect();
    assert_eq!(
        shown,
        ["true b::B B", "false super::c::D D", "false super::c c", "false super::E F"]
    );
    assert_eq!(children(text), ["b"]);
    assert_eq!(paths("f(a::b::c); d"), [["a", "b", "c"]]);
}
