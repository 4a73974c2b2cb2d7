//! The compose project that made a container: which file, which service, which line names its image.
//!
//! Called by [`super::look`], in the plan and by `inspect`. The next `docker compose up` makes the
//! container again as that line says: after an upgrade that is the old image, on the database that
//! the new version has changed. Reads the project's file and its `.env`; of the latter nothing but
//! the line of the variable that the image's line names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::commands::Project;
use super::{Kind, Owner};
use crate::journal::Task;

/// The greatest file that is read.
const LARGEST: u64 = 1 << 20;

/// From the labels of a container (compose-spec; Docker Compose 1 and 2 write the same ones).
pub(super) fn project(container: &Value) -> Option<Project> {
    let label = |key: &str| {
        let value = container["Config"]["Labels"][format!("com.docker.compose.{key}")].as_str();
        value.filter(|value| !value.is_empty())
    };
    let name = label("project")?.to_owned();
    let directory = label("project.working_dir").unwrap_or_default().trim_end_matches('/');
    let joined = |file: &str| match file.starts_with('/') || directory.is_empty() {
        true => file.to_owned(),
        // Compose 1 notes it as it was given.
        false => format!("{directory}/{file}"),
    };
    let files = label("project.config_files").unwrap_or_default().split(',').map(str::trim);
    let files = files.filter(|file| !file.is_empty()).map(joined).collect();
    Some(Project { name, directory: directory.to_owned(), files })
}

/// What is seen of the line that names the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// This one.
    At(Place),
    /// The service is built, from this line on.
    Built { file: PathBuf, number: usize },
    /// Why it is not known.
    Unseen(String),
}

/// The line to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub file: PathBuf,
    /// Counted from 1.
    pub number: usize,
    /// The line without its indentation; of `.env`, the variable's.
    pub text: String,
    /// The image that it comes to, as far as its variables are known.
    pub image: Option<String>,
}

/// Finds the line of a service's image.
pub(super) fn line(container: &Value, project: &Project) -> Line {
    let service = container["Config"]["Labels"]["com.docker.compose.service"].as_str();
    let Some(service) = service else { return Line::Unseen("no label names its service".into()) };
    let mut files = project.files.clone();
    if files.is_empty() && !project.directory.is_empty() {
        let names = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
        files.extend(names.map(|name| format!("{}/{name}", project.directory)));
    }
    let mut unread = Vec::new();
    let mut found = None;
    // The last file that says it wins.
    for file in files {
        match read(Path::new(&file)) {
            Ok(text) => {
                let seen = in_file(&text, service, Path::new(&file));
                found = seen.or(found);
            }
            Err(error) => unread.push(format!("{file}: {error}")),
        }
    }
    match found {
        Some(Line::At(place)) => Line::At(resolved(container, project, place)),
        Some(other) => other,
        None if unread.is_empty() => {
            Line::Unseen(format!("no line names the image of service {service}"))
        }
        None => Line::Unseen(unread.join("; ")),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(format!("is no file of at most {LARGEST} bytes"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The line in this file: below `services:`, below the service, `image:`.
fn in_file(text: &str, service: &str, file: &Path) -> Option<Line> {
    let (mut in_services, mut below, mut built) = (false, None, None);
    for (index, raw) in text.lines().enumerate() {
        let line = raw.trim_end();
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let indent = line.len() - content.len();
        if indent == 0 {
            in_services = key(content).is_some_and(|(key, _)| key == "services");
            below = None;
            continue;
        }
        if !in_services {
            continue;
        }
        if below.is_some_and(|of| indent <= of) {
            below = None;
        }
        match (below, key(content)) {
            (None, Some((name, _))) if name == service => below = Some(indent),
            (Some(_), Some(("image", value))) if !value.is_empty() => {
                let image = Some(value.to_owned());
                let text = content.to_owned();
                return Some(Line::At(Place {
                    file: file.to_owned(),
                    number: index + 1,
                    text,
                    image,
                }));
            }
            (Some(_), Some(("build", _))) => {
                built.get_or_insert(Line::Built { file: file.to_owned(), number: index + 1 });
            }
            (_, _) => {}
        }
    }
    built
}

/// `key: value`, without quotes and comment.
fn key(content: &str) -> Option<(&str, &str)> {
    let (key, value) = content.split_once(':')?;
    let value = value.split(" #").next().unwrap_or_default();
    let bare = |text: &'_ str| -> (usize, usize) {
        let inside = text.trim().trim_matches(['"', '\'']);
        let start = text.find(inside).unwrap_or_default();
        (start, start + inside.len())
    };
    let ((from, to), (first, last)) = (bare(key), bare(value));
    Some((key.get(from..to)?, value.get(first..last)?))
}

/// The same with its variables filled in from the project's `.env`; where one decides, its line is
/// the one to change.
fn resolved(container: &Value, project: &Project, mut place: Place) -> Place {
    let Some(image) = place.image.clone().filter(|image| image.contains('$')) else {
        return place;
    };
    let label = &container["Config"]["Labels"]["com.docker.compose.project.environment_file"];
    let env_file = match label.as_str().filter(|file| !file.is_empty()) {
        Some(file) => PathBuf::from(file),
        None => Path::new(&project.directory).join(".env"),
    };
    let text = read(&env_file).unwrap_or_default();
    let mut variables = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim().strip_prefix("export ").unwrap_or(line.trim());
        if let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            let value = value.trim().trim_matches(['"', '\'']);
            variables.insert(name.trim().to_owned(), (value.to_owned(), index + 1));
        }
    }
    let mut named = None;
    place.image = filled(&image, &mut |name| {
        let (value, number) = variables.get(name)?.clone();
        named = Some((name.to_owned(), value.clone(), number));
        Some(value)
    });
    if let Some((name, value, number)) = named {
        place.file = env_file;
        place.number = number;
        place.text = format!("{name}={value}");
    }
    place
}

/// The text with `$NAME`, `${NAME}`, `${NAME:-default}` filled in; none where one is not known.
fn filled(text: &str, value_of: &mut dyn FnMut(&str) -> Option<String>) -> Option<String> {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        whole.push_str(before);
        let (inside, behind) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}')?,
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                after.split_at(end.unwrap_or(after.len()))
            }
        };
        let end = inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, modifier) = inside.split_at(end.unwrap_or(inside.len()));
        let default = modifier.strip_prefix(":-").or_else(|| modifier.strip_prefix('-'));
        let value = value_of(name).filter(|value| !value.is_empty());
        whole.push_str(&value.or_else(|| default.map(str::to_owned))?);
        rest = behind;
    }
    whole.push_str(rest);
    Some(whole)
}

/// What is needed for the sentences.
pub(super) struct About<'a> {
    pub name: &'a str,
    pub docker: &'a str,
    /// The image that runs, as the container names it.
    pub runs: &'a str,
    /// The image that an upgrade would bring; none when none is planned.
    pub next: Option<&'a str>,
}

/// The project as an owner, or nothing when the container is of none.
pub(super) fn owner(about: &About<'_>, container: &Value) -> Option<Owner> {
    let project = project(container)?;
    let label = |key: &str| container["Config"]["Labels"][key].as_str().unwrap_or_default();
    let service = label("com.docker.compose.service");
    let of_portainer = project.directory.starts_with("/data/compose/");
    let line = match of_portainer {
        true => Line::Unseen("Portainer keeps it: Stacks, the stack, Editor".to_owned()),
        false => line(container, &project),
    };
    let wanted = about.next.unwrap_or(about.runs);
    let up = match project.files.first() {
        Some(_) if of_portainer => "the next update of the stack".to_owned(),
        Some(_) | None => format!("the next `{} compose up`", about.docker),
    };
    let (place, file, commands, is_at_odds) = told(&line, about.runs, wanted);
    let names_next = matches!(&line, Line::At(place)
        if about.next.is_some_and(|next| place.image.as_deref().is_some_and(|it| is_same(it, next))));
    let when = match (about.next, is_at_odds) {
        (Some(next), _) if names_next => format!("it names {next} already"),
        (Some(next), _) => format!(
            "{up} puts the image back that it names, on the database that {} has changed. Right after the upgrade, before anybody runs it, have it name {next}",
            version_of(next)
        ),
        (None, true) => format!(
            "{up} puts that image on the database that {} has changed. Have it name {}",
            version_of(about.runs),
            about.runs
        ),
        (None, false) => format!("{up} makes {} as it runs now", about.name),
    };
    let who = if of_portainer { "Portainer's stack" } else { "compose project" };
    Some(Owner {
        kind: Kind::Compose,
        name: format!("{}/{service}", project.name),
        file,
        refuses: false,
        is_at_odds,
        after: about.next.filter(|_| !names_next).map(|next| Task {
            what: format!(
                "have compose project {} (service {service}, {place}) name {next}, or {up} puts the old image on the new version's database",
                project.name
            ),
            command: commands.first().cloned(),
        }),
        message: format!(
            "{} was made by {who} {} (service {service}, {place}): {when}",
            about.name, project.name
        ),
        hand_over: commands,
    })
}

/// Where the image is named, the file, the command that changes it, and whether it names another
/// image than the one that runs.
fn told(line: &Line, runs: &str, wanted: &str) -> (String, Option<String>, Vec<String>, bool) {
    match line {
        Line::Unseen(why) => {
            (format!("its image's line is not seen here: {why}"), None, Vec::new(), false)
        }
        Line::Built { file, number } => {
            let file = file.display().to_string();
            let place = format!("which builds its image, {file} line {number}");
            (place, Some(file), Vec::new(), false)
        }
        Line::At(place) => {
            let file = place.file.display().to_string();
            let said = format!("{file} line {}: `{}`", place.number, place.text);
            let differs = place.image.as_deref().is_some_and(|image| !is_same(image, runs));
            let commands = change(place, wanted).into_iter().collect();
            (said, Some(file), commands, differs)
        }
    }
}

/// A command that has the line name this image.
fn change(place: &Place, wanted: &str) -> Option<String> {
    let now = place.image.as_deref()?;
    if is_same(now, wanted) {
        return None;
    }
    let (old, new) = match place.text.contains(now) {
        true => (now, wanted),
        // A variable holds the tag alone.
        false => {
            let value = place.text.split_once('=')?.1;
            let (repository, tag) = wanted.rsplit_once(':')?;
            let fits = now.strip_suffix(value).is_some_and(|head| head == format!("{repository}:"));
            (fits.then_some(value)?, tag)
        }
    };
    let plain =
        |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:@+".contains(c));
    let file = place.file.display().to_string();
    if !(plain(old) && plain(new) && plain(&file)) {
        return None;
    }
    Some(format!("sudo sed -i '{}s|{old}|{new}|' {file}", place.number))
}

fn is_same(one: &str, other: &str) -> bool {
    let plain = |image: &str| {
        let image = image.strip_prefix("docker.io/").unwrap_or(image);
        image.to_owned()
    };
    plain(one) == plain(other)
}

/// What comes after the colon of an image's name, or the name.
fn version_of(image: &str) -> &str {
    match image.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        Some(_) | None => image,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(directory: &Path, file: &str) -> Value {
        json!({"Config": {"Labels": {
            "com.docker.compose.project": "shop",
            "com.docker.compose.service": "payram",
            "com.docker.compose.project.working_dir": directory,
            "com.docker.compose.project.config_files": file,
        }}})
    }

    fn told_of(text: &str, env: &str, next: Option<&str>) -> Owner {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("docker-compose.yml"), text).expect("a file");
        std::fs::write(directory.path().join(".env"), env).expect("a file");
        // Compose 1 names the file without its directory.
        let container = container(directory.path(), "docker-compose.yml");
        let about =
            About { name: "payram", docker: "docker", runs: "payramapp/payram:1.9.6", next };
        let mut owner = owner(&about, &container).expect("an owner");
        let place = directory.path().display().to_string();
        owner.message = owner.message.replace(&place, "DIR");
        owner.hand_over = owner.hand_over.iter().map(|one| one.replace(&place, "DIR")).collect();
        owner
    }

    const FILE: &str = "\
version: '3'
x-image:
  image: other:1
services:
  db:
    image: postgres:15
  \"payram\":
    # image: payramapp/payram:0
    restart: unless-stopped
    image: \"payramapp/payram:1.9.6\" # the shop
networks:
  payram:
    image: no
";

    #[test]
    fn the_line_to_change_is_named_with_the_command_that_changes_it() {
        let owner = told_of(FILE, "", Some("payramapp/payram:1.9.7"));
        assert_eq!((owner.name.as_str(), owner.refuses), ("shop/payram", false));
        for part in
            ["DIR/docker-compose.yml line 10", "1.9.6", "have it name payramapp/payram:1.9.7"]
        {
            assert!(owner.message.contains(part), "{}", owner.message);
        }
        assert_eq!(
            owner.hand_over,
            [
                "sudo sed -i '10s|payramapp/payram:1.9.6|payramapp/payram:1.9.7|' DIR/docker-compose.yml"
            ]
        );
    }

    #[test]
    fn without_a_plan_only_a_file_that_names_another_image_is_at_odds() {
        assert!(!told_of(FILE, "", None).is_at_odds);
        let old = told_of(&FILE.replace("payram:1.9.6", "payram:1.9.5"), "", None);
        assert!(old.is_at_odds && old.message.contains("1.9.6 has changed"), "{old:?}");
        assert!(old.hand_over[0].contains("s|payramapp/payram:1.9.5|payramapp/payram:1.9.6|"));
    }

    #[test]
    fn a_variable_of_the_env_file_is_the_line_to_change() {
        let file = FILE.replace("payram:1.9.6", "payram:${TAG:-1.9.1}");
        let owner = told_of(&file, "KEY=hunter2\nTAG=1.9.6\n", Some("payramapp/payram:1.9.7"));
        assert!(owner.message.contains("DIR/.env line 2: `TAG=1.9.6`"), "{}", owner.message);
        assert!(!format!("{owner:?}").contains("hunter2"));
        assert_eq!(owner.hand_over, ["sudo sed -i '2s|1.9.6|1.9.7|' DIR/.env"]);
        let by_default = told_of(&file, "", None);
        assert!(by_default.is_at_odds, "1.9.1 by default: {}", by_default.message);
    }

    #[test]
    fn a_file_that_is_not_here_is_said() {
        let container =
            container(Path::new("/data/compose/7"), "/data/compose/7/docker-compose.yml");
        let about =
            About { name: "payram", docker: "docker", runs: "payramapp/payram:1.9.6", next: None };
        let owner = owner(&about, &container).expect("an owner");
        assert!(owner.message.contains("Portainer") && !owner.is_at_odds, "{}", owner.message);
        let gone = self::container(Path::new("/nowhere"), "/nowhere/compose.yml");
        let gone = super::owner(&about, &gone).expect("an owner");
        assert!(gone.message.contains("/nowhere/compose.yml: No such file"), "{}", gone.message);
    }

    #[test]
    fn a_container_of_no_project_has_no_such_owner() {
        let about = About { name: "p", docker: "docker", runs: "p:1", next: None };
        assert_eq!(super::owner(&about, &json!({"Config": {"Labels": null}})), None);
    }
}
