//! Which container commands a shell text holds: the `Exec` lines of a unit, a script, a crontab, the
//! `-c` of a running shell.
//!
//! Called by [`super::units`] and [`super::jobs`]. It is no shell: it splits into simple commands,
//! takes quotes away and fills in the variables that it is given or sees being set. A name that it
//! can't follow matches nothing, so what it finds is there, and what it misses stays missed. Values
//! of what it reads are never handed on: a command line may hold secrets (I10).

use std::collections::BTreeMap;

/// The programs that start containers.
const CLIENTS: [&str; 3] = ["docker", "podman", "nerdctl"];

/// The older compose programs.
const COMPOSERS: [&str; 2] = ["docker-compose", "podman-compose"];

/// Global options of the client that take a value of their own.
const WITH_VALUE: [&str; 7] = ["-H", "--host", "-c", "--context", "-l", "--log-level", "--config"];

/// Words that only print or look for what follows.
const TALKERS: [&str; 6] = ["echo", "printf", "grep", "logger", "#", "cat"];

/// Stands for a text that is not known and may be anything: the instance of a template unit.
pub(super) const ANYTHING: char = '\u{1}';

/// Stands for a text that is not known: a name with it is nobody's.
const UNKNOWN: char = '\u{2}';

/// How deep a text within a text is read (`sh -c "…"`).
const DEEPEST: usize = 4;

/// What a command does to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verb {
    /// `run`, `create`: makes one of an image of its own choice.
    Make,
    /// `rm`, `rename`, `compose down`.
    Remove,
    /// `start` that waits for the container's end, `compose up` in the foreground.
    Hold,
    /// `start`, `compose up -d`.
    Start,
    /// `stop`, `kill`, `restart`, `pause`.
    Stop,
}

/// A command that acts on containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub verb: Verb,
    /// Whether it runs again and again, in a loop without end.
    pub is_looped: bool,
    /// The words after the verb.
    words: Vec<String>,
    /// Of compose: its own words before the verb.
    compose: Option<Vec<String>>,
    /// The directory that the text changed to before it.
    directory: Option<String>,
}

/// Who is looked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// The container's name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its image's repository.
    pub repository: String,
    /// The host's side of its mounts.
    pub sources: Vec<String>,
    /// Its compose project, when it has one.
    pub project: Option<Project>,
}

/// A compose project, from the container's labels.
#[derive(Clone, Debug, Default)]
pub(super) struct Project {
    pub name: String,
    pub directory: String,
    pub files: Vec<String>,
}

impl Command {
    /// Whether it acts on this container; `directory` is where it runs.
    pub fn is_about(&self, wanted: &Wanted, directory: Option<&str>) -> bool {
        match &self.compose {
            Some(words) => self.is_of_project(words, wanted, directory),
            None if self.verb == Verb::Make => self.makes(wanted),
            None => self.words.iter().any(|word| names(word, wanted)),
        }
    }

    fn makes(&self, wanted: &Wanted) -> bool {
        match option(&self.words, "--name") {
            Some(name) => fits(name, &wanted.name),
            // Without a name it is ours only where it would work on the same files.
            None => {
                let is_image = |word: &String| {
                    let word = word.strip_prefix("docker.io/").unwrap_or(word);
                    !wanted.repository.is_empty()
                        && word.strip_prefix(wanted.repository.as_str()).is_some_and(|rest| {
                            rest.is_empty() || rest.starts_with(':') || rest.starts_with('@')
                        })
                };
                let mounts = |word: &String| {
                    wanted.sources.iter().any(|source| {
                        word.split([':', ',', '=']).any(|part| part.trim_end_matches('/') == source)
                    })
                };
                self.words.iter().any(is_image) && self.words.iter().any(mounts)
            }
        }
    }

    fn is_of_project(&self, words: &[String], wanted: &Wanted, directory: Option<&str>) -> bool {
        let Some(project) = &wanted.project else { return false };
        let name = option(words, "-p").or_else(|| option(words, "--project-name"));
        if let Some(name) = name {
            return fits(name, &project.name);
        }
        let directory = self.directory.as_deref().or(directory);
        let file = option(words, "-f").or_else(|| option(words, "--file"));
        if let Some(file) = file {
            let joined = match directory {
                Some(directory) if !file.starts_with('/') => {
                    format!("{}/{}", directory.trim_end_matches('/'), file.trim_start_matches("./"))
                }
                Some(_) | None => file.to_owned(),
            };
            return project.files.contains(&joined);
        }
        let directory = option(words, "--project-directory").or(directory);
        let is_same = |path: &str| path.trim_end_matches('/') == project.directory;
        !project.directory.is_empty() && directory.is_some_and(is_same)
    }
}

/// Whether a word names the container: its name, or as much of its id as nobody types by chance.
fn names(word: &str, wanted: &Wanted) -> bool {
    fits(word, &wanted.name) || (word.len() >= 12 && wanted.id.starts_with(word))
}

/// Whether a word is this name; a part that may be anything is.
fn fits(word: &str, name: &str) -> bool {
    if name.is_empty() || word.contains(UNKNOWN) {
        return false;
    }
    match word.split_once(ANYTHING) {
        None => word.trim_start_matches('/') == name,
        Some((head, tail)) => {
            // A name of nothing but the instance would be everybody's.
            !(head.is_empty() && tail.is_empty())
                && name.len() > head.len() + tail.len()
                && name.starts_with(head)
                && name.ends_with(tail)
        }
    }
}

/// The value of an option, `--name X` or `--name=X`, or of a short one `-fX`.
fn option<'w>(words: &'w [String], name: &str) -> Option<&'w str> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == name {
            return words.next().map(String::as_str);
        }
        if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            return Some(value);
        }
    }
    None
}

/// What is found in a text.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub commands: Vec<Command>,
    /// Files that the text runs or reads: absolute paths that begin a command, or follow a shell.
    pub scripts: Vec<String>,
}

/// Reads a text; `variables` are those that it is run with.
pub(super) fn read(text: &str, variables: &BTreeMap<String, String>) -> Found {
    let mut reading = Reading { variables: variables.clone(), ..Reading::default() };
    reading.text(text, 0);
    reading.found
}

#[derive(Default)]
struct Reading {
    variables: BTreeMap<String, String>,
    found: Found,
    directory: Option<String>,
    /// Of the loops that the words are in, whether each has no end.
    loops: Vec<bool>,
    /// Whether the next command is the condition of the loop that has just begun.
    awaits_condition: bool,
}

impl Reading {
    fn text(&mut self, text: &str, depth: usize) {
        if depth > DEEPEST {
            return;
        }
        for command in simple_commands(text) {
            self.command(command, depth);
        }
    }

    fn command(&mut self, command: Vec<Word>, depth: usize) {
        let mut words: Vec<String> = Vec::new();
        for word in command {
            let word = self.filled(&word);
            if words.is_empty() && self.is_grammar(&word) {
                continue;
            }
            words.push(word);
        }
        if std::mem::take(&mut self.awaits_condition)
            && let (Some(last), Some(first)) = (self.loops.last_mut(), words.first())
        {
            *last = is_endless(first);
        }
        self.simple(words, depth);
    }

    /// Words of the shell's own before a command; loops begin and end with them.
    fn is_grammar(&mut self, word: &str) -> bool {
        match word {
            "while" | "until" => {
                self.loops.push(false);
                self.awaits_condition = true;
            }
            "for" | "select" => self.loops.push(false),
            "done" => {
                self.loops.pop();
            }
            "do" | "then" | "else" | "elif" | "if" | "fi" | "!" | "{" | "}" | "exec" | "sudo"
            | "nohup" | "nice" | "time" | "command" => {}
            _ => return false,
        }
        true
    }

    fn simple(&mut self, words: Vec<String>, depth: usize) {
        let mut words = words.as_slice();
        // Assignments: of the text from here on, or of this command alone.
        while let Some((key, value)) = words.first().and_then(|word| assignment(word)) {
            self.variables.insert(key, value);
            words = words.get(1..).unwrap_or_default();
        }
        let Some(first) = words.first() else { return };
        if matches!(base(first), "export" | "readonly" | "local" | "declare") {
            for (key, value) in words.iter().skip(1).filter_map(|word| assignment(word)) {
                self.variables.insert(key, value);
            }
            return;
        }
        if base(first) == "cd" {
            self.directory = words.get(1).cloned();
            return;
        }
        if TALKERS.contains(&base(first)) {
            return;
        }
        for word in words.iter().filter(|word| word.contains(char::is_whitespace)) {
            // `sh -c "…"`, `su -c "…"`, `flock FILE -c "…"`.
            self.text(word, depth + 1);
        }
        let is_client =
            |word: &&String| CLIENTS.contains(&base(word)) || COMPOSERS.contains(&base(word));
        match words.iter().position(|word| is_client(&word)) {
            Some(at) => self.client(words.get(at..).unwrap_or_default()),
            None => self.scripts(words),
        }
    }

    fn scripts(&mut self, words: &[String]) {
        let paths = words.iter().filter(|word| word.starts_with('/')).take(3);
        self.found.scripts.extend(paths.cloned());
    }

    /// The words of a client, itself first.
    fn client(&mut self, words: &[String]) {
        let Some((program, rest)) = words.split_first() else { return };
        let mut is_compose = COMPOSERS.contains(&base(program));
        let mut rest = rest;
        if !is_compose {
            rest = after_options(rest);
            match rest.first().map(String::as_str) {
                Some("container") => rest = rest.get(1..).unwrap_or_default(),
                Some("compose") => {
                    is_compose = true;
                    rest = rest.get(1..).unwrap_or_default();
                }
                Some(_) | None => {}
            }
        }
        let own = if is_compose { rest } else { &[] };
        if is_compose {
            let at = rest.iter().position(|word| verb_of(word, true, &[]).is_some());
            rest = at.and_then(|at| rest.get(at..)).unwrap_or_default();
        }
        let Some((verb, words)) = rest.split_first() else { return };
        let Some(verb) = verb_of(verb, is_compose, words) else { return };
        let before = own.len().saturating_sub(words.len() + 1);
        self.found.commands.push(Command {
            verb,
            is_looped: self.loops.contains(&true),
            words: words.to_vec(),
            compose: is_compose.then(|| own.iter().take(before).cloned().collect()),
            directory: self.directory.clone(),
        });
    }

    /// A word with its variables filled in.
    fn filled(&self, word: &Word) -> String {
        let mut text = String::new();
        for piece in &word.0 {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Variable { name, otherwise } => {
                    match (self.variables.get(name), otherwise) {
                        (Some(value), _) if !value.is_empty() => text.push_str(value),
                        (_, Some(default)) => text.push_str(default),
                        (Some(_), None) => {}
                        (None, None) => text.push(UNKNOWN),
                    }
                }
            }
        }
        text
    }
}

/// What a verb of the client does; none for one that leaves containers alone.
fn verb_of(verb: &str, is_compose: bool, words: &[String]) -> Option<Verb> {
    let has = |short: char, long: &str| {
        words.iter().any(|word| {
            word == long
                || (word.starts_with('-') && !word.starts_with("--") && word.contains(short))
        })
    };
    Some(match (verb, is_compose) {
        ("run" | "create", false) => Verb::Make,
        ("rm" | "rename" | "remove", false) => Verb::Remove,
        ("start", false) if has('a', "--attach") || has('i', "--interactive") => Verb::Hold,
        ("start" | "unpause", false) => Verb::Start,
        ("stop" | "kill" | "restart" | "pause", false) => Verb::Stop,
        ("up", true) if has('d', "--detach") || has('d', "--wait") => Verb::Start,
        ("up", true) => Verb::Hold,
        ("down" | "rm", true) => Verb::Remove,
        ("run" | "create" | "start", true) => Verb::Start,
        ("stop" | "kill" | "restart" | "pause", true) => Verb::Stop,
        (_, _) => return None,
    })
}

/// What follows the client's own options.
fn after_options(words: &[String]) -> &[String] {
    let mut rest = words;
    while let Some((first, others)) = rest.split_first() {
        if !first.starts_with('-') {
            break;
        }
        let skipped = usize::from(WITH_VALUE.contains(&first.as_str()));
        rest = others.get(skipped..).unwrap_or_default();
    }
    rest
}

/// Whether a loop with this condition never ends by itself.
fn is_endless(condition: &str) -> bool {
    matches!(base(condition), "true" | ":" | "sleep" | "1")
        || CLIENTS.contains(&base(condition))
        || COMPOSERS.contains(&base(condition))
}

fn assignment(word: &str) -> Option<(String, String)> {
    let (key, value) = word.split_once('=')?;
    let is_name = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then(|| (key.to_owned(), value.to_owned()))
}

/// The last part of a path.
fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A word before its variables are filled in.
#[derive(Debug, Default)]
struct Word(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    Variable { name: String, otherwise: Option<String> },
}

impl Word {
    fn push(&mut self, c: char) {
        match self.0.last_mut() {
            Some(Piece::Text(text)) => text.push(c),
            Some(Piece::Variable { .. }) | None => self.0.push(Piece::Text(c.to_string())),
        }
    }
}

/// The simple commands of a text, in order.
fn simple_commands(text: &str) -> Vec<Vec<Word>> {
    let mut splitting = Splitting::default();
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => splitting.add(c),
            (_, '\\') => match chars.next() {
                Some('\n') | None => {}
                Some(escaped) => splitting.add(escaped),
            },
            (_, '$') => variable(&mut chars, &mut splitting),
            (Some(_), _) => splitting.add(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                // An empty one is a word, too.
                splitting.word.get_or_insert_default();
            }
            (None, '#') if splitting.word.is_none() => {
                while chars.next_if(|next| *next != '\n').is_some() {}
            }
            (None, '\n' | ';' | '&' | '|' | '(' | ')' | '`') => splitting.end_command(),
            (None, space) if space.is_whitespace() => splitting.end_word(),
            (None, _) => splitting.add(c),
        }
    }
    splitting.end_command();
    splitting.commands
}

#[derive(Default)]
struct Splitting {
    commands: Vec<Vec<Word>>,
    command: Vec<Word>,
    word: Option<Word>,
}

impl Splitting {
    fn add(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) {
        self.command.extend(self.word.take());
    }

    fn end_command(&mut self) {
        self.end_word();
        if !self.command.is_empty() {
            self.commands.push(std::mem::take(&mut self.command));
        }
    }
}

/// `$NAME`, `${NAME}`, `${NAME:-default}`; of `$(…)` the words inside are commands of their own.
fn variable(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, into: &mut Splitting) {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let piece = match chars.peek() {
        Some('(') => {
            // What comes out of it is not known.
            into.add(UNKNOWN);
            return;
        }
        Some('{') => {
            chars.next();
            let mut inside = String::new();
            while let Some(c) = chars.next_if(|c| *c != '}') {
                inside.push(c);
            }
            chars.next();
            let end = inside.find(|c| !is_name(&c)).unwrap_or(inside.len());
            let (name, rest) = inside.split_at(end);
            let otherwise = rest.strip_prefix(":-").or_else(|| rest.strip_prefix('-'));
            Piece::Variable { name: name.to_owned(), otherwise: otherwise.map(str::to_owned) }
        }
        Some(c) if is_name(c) => {
            let mut name = String::new();
            while let Some(c) = chars.next_if(is_name) {
                name.push(c);
            }
            Piece::Variable { name, otherwise: None }
        }
        Some(_) | None => {
            into.add(UNKNOWN);
            return;
        }
    };
    into.word.get_or_insert_default().0.push(piece);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            name: "payram".into(),
            id: "0123456789abcdef0123456789abcdef".into(),
            repository: "payramapp/payram".into(),
            sources: vec!["/srv/payram".into()],
            project: Some(Project {
                name: "shop".into(),
                directory: "/srv/shop".into(),
                files: vec!["/srv/shop/docker-compose.yml".into()],
            }),
        }
    }

    /// The verbs of the commands about the container; `*` for those in a loop without end.
    fn about(text: &str) -> String {
        let found = read(text, &BTreeMap::new());
        let ours = found.commands.iter().filter(|one| one.is_about(&wanted(), None));
        let said = ours.map(|one| {
            let star = if one.is_looped { "*" } else { "" };
            format!("{:?}{star}", one.verb)
        });
        said.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn commands_that_name_the_container_are_found_in_every_spelling() {
        for (text, verbs) in [
            ("/usr/bin/docker run --rm --name payram payramapp/payram:latest", "Make"),
            ("docker run --name=payram -d x", "Make"),
            ("docker container run --name 'payram' x", "Make"),
            ("sudo docker -H unix:///x --context c create --name \"payram\" x", "Make"),
            ("podman run --replace \\\n  --name payram x", "Make"),
            ("docker start -a payram", "Hold"),
            ("docker start --attach payram", "Hold"),
            ("docker start payram", "Start"),
            ("docker stop -t 30 payram; docker rm payram", "Stop Remove"),
            ("docker rm -f payram && docker run -d --name payram x", "Remove Make"),
            ("NAME=payram\ndocker run --name $NAME x", "Make"),
            ("export NAME=payram; docker start ${NAME}", "Start"),
            ("docker stop ${NAME:-payram}", "Stop"),
            (
                "/bin/sh -c 'docker stop payram || true; exec docker run --name payram x'",
                "Stop Make",
            ),
            ("docker restart 0123456789ab", "Stop"),
            ("if ! docker inspect payram; then docker start payram; fi", "Start"),
            ("docker run -v /srv/payram:/root/payram payramapp/payram:1.9.6", "Make"),
            ("docker compose -p shop up", "Hold"),
            ("docker-compose -f /srv/shop/docker-compose.yml up -d", "Start"),
            ("cd /srv/shop && docker compose down", "Remove"),
        ] {
            assert_eq!(about(text), verbs, "{text}");
        }
    }

    #[test]
    fn commands_about_others_or_about_nothing_are_not_found() {
        for text in [
            "docker exec payram pg_dump payram",
            "docker logs -f payram",
            "docker inspect payram",
            "docker run --name payram-mainnet payramapp/payram:1.9.6",
            "docker run --name $NAME x",
            "docker stop $(docker ps -q)",
            "echo docker run --name payram x",
            "# docker run --name payram x",
            "docker run --rm payramapp/payram:1.9.6 --version",
            "systemctl restart docker",
            "docker compose -p other up -d",
            "cd /srv/elsewhere && docker compose up -d",
            "",
        ] {
            assert_eq!(about(text), "", "{text}");
        }
    }

    #[test]
    fn a_loop_without_end_is_told_from_one_that_ends() {
        for (text, verbs) in [
            ("while true; do docker run --rm --name payram x; sleep 5; done", "Make*"),
            ("while :; do docker rm -f payram; docker run --name payram x; done", "Remove* Make*"),
            ("until docker start -a payram; do sleep 1; done", "Hold*"),
            ("while sleep 60\ndo\n  docker start payram\ndone", "Start*"),
            ("for v in 1 2; do docker run --name payram x:$v; done", "Make"),
            ("while read line; do docker start payram; done", "Start"),
            ("while true; do echo; done; docker run --name payram x", "Make"),
        ] {
            assert_eq!(about(text), verbs, "{text}");
        }
    }

    #[test]
    fn the_instance_of_a_template_may_be_anything() {
        let named = |name: &str| {
            let text = format!("docker run --name {name} x");
            let found = read(&text, &BTreeMap::new());
            let shop = Wanted { name: "payram-main".into(), ..Wanted::default() };
            found.commands.iter().any(|one| one.is_about(&shop, None))
        };
        assert!(named(&format!("payram-{ANYTHING}")));
        assert!(!named(&format!("other-{ANYTHING}")));
        assert!(!named(&ANYTHING.to_string()));
    }

    #[test]
    fn scripts_that_a_text_runs_are_named() {
        let found = read("/bin/bash /opt/shop/start.sh --fast", &BTreeMap::new());
        assert_eq!(found.scripts, ["/bin/bash", "/opt/shop/start.sh"]);
    }

    #[test]
    fn a_compose_command_is_placed_by_where_it_runs() {
        let found = read("/usr/bin/docker compose up", &BTreeMap::new());
        let one = &found.commands[0];
        assert!(one.is_about(&wanted(), Some("/srv/shop/")));
        assert!(!one.is_about(&wanted(), Some("/srv")));
        let found = read("docker compose -f docker-compose.yml up", &BTreeMap::new());
        assert!(found.commands[0].is_about(&wanted(), Some("/srv/shop")));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange_to_be_read(text in "\\PC{0,200}") {
            read(&text, &BTreeMap::new());
        }
    }
}
