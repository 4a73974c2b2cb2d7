//! The process: what came from the old image may now come from the new one; all else stays.

use serde_json::{Value, json};

use super::compare::{Comparison, union};
use crate::spec::SpecInputs;
use crate::spec::read::{self, NetworkMode};

/// Compares the fields of `Config` that the table sets apart.
pub(super) fn compare(comparison: &mut Comparison, container: &Value, inputs: &SpecInputs<'_>) {
    let sides = Sides {
        old: &inputs.old["Config"],
        old_default: &inputs.old_image["Config"],
        new: &container["Config"],
        new_default: &inputs.new_image["Config"],
    };
    comparison.exact("Config.Image", &json!(inputs.image_reference), &sides.new["Image"]);
    labels(comparison, &sides, inputs);
    environment(comparison, &sides, inputs);
    for field in ["User", "WorkingDir", "StopSignal"] {
        sides.within(field).by_image(comparison, &format!("Config.{field}"));
    }
    for field in ["Shell", "OnBuild"] {
        let side = sides.within(field);
        if !(side.is_default() && read::is_nothing(side.new)) {
            side.by_image(comparison, &format!("Config.{field}"));
        }
    }
    health(comparison, &sides);
    command(comparison, &sides);
    exposed(comparison, &sides, inputs);
    volumes(comparison, &sides);
    hostname(comparison, container, inputs);
}

/// One field in the old container, the old image, the new container and the new image.
struct Sides<'a> {
    old: &'a Value,
    old_default: &'a Value,
    new: &'a Value,
    new_default: &'a Value,
}

impl<'a> Sides<'a> {
    fn within(&self, field: &str) -> Sides<'a> {
        Sides {
            old: &self.old[field],
            old_default: &self.old_default[field],
            new: &self.new[field],
            new_default: &self.new_default[field],
        }
    }

    /// Whether the old container had its image's default.
    fn is_default(&self) -> bool {
        read::same(self.old, self.old_default)
    }

    /// The new image's default exactly where the old one had its image's, else unchanged.
    fn by_image(&self, comparison: &mut Comparison, field: &str) {
        let expected = if self.is_default() { self.new_default } else { self.old };
        comparison.equal(field, expected, self.new);
    }
}

fn labels(comparison: &mut Comparison, sides: &Sides<'_>, inputs: &SpecInputs<'_>) {
    let sides = sides.within("Labels");
    let mut names = union(sides.old, sides.new);
    names.extend(inputs.labels.iter().map(|(key, _)| key.as_str()));
    names.extend(read::keys(sides.new_default));
    names.sort_unstable();
    names.dedup();
    for key in names {
        let field = format!("Config.Labels[{key}]");
        match inputs.labels.iter().find(|(ours, _)| ours == key) {
            Some((_, value)) => comparison.exact(&field, &json!(value), &sides.new[key]),
            None if sides.old.get(key) == sides.old_default.get(key) => {
                comparison.exact(&field, &sides.new_default[key], &sides.new[key]);
            }
            None => comparison.exact(&field, &sides.old[key], &sides.new[key]),
        }
    }
}

/// Name by name: an operator's value stays whatever the new image says; a default of the old
/// image gives way to the new image's, or to what the manifest adds.
fn environment(comparison: &mut Comparison, sides: &Sides<'_>, inputs: &SpecInputs<'_>) {
    let old = read::texts(&sides.old["Env"]);
    let old_default = read::texts(&sides.old_default["Env"]);
    let new = read::texts(&sides.new["Env"]);
    let new_default = read::texts(&sides.new_default["Env"]);
    let added: Vec<&str> = inputs.overlay.environment.iter().map(String::as_str).collect();
    let all = [&old, &new, &new_default];
    let mut names: Vec<&str> =
        all.into_iter().flatten().map(|entry| read::env_key(entry)).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let was = read::env_of(&old, name);
        let expected = if was.iter().any(|entry| !old_default.contains(entry)) {
            was
        } else {
            let inherited = read::env_of(&new_default, name);
            // Only what the manifest may add can stand where no image and no operator spoke.
            if inherited.is_empty() { read::env_of(&added, name) } else { inherited }
        };
        let found = read::env_of(&new, name);
        if expected != found {
            let value = |entries: Vec<&str>| {
                if entries.is_empty() { Value::Null } else { json!(entries) }
            };
            comparison.report(&format!("Config.Env[{name}]"), &value(expected), &value(found));
        }
    }
}

/// Inherited field by field.
fn health(comparison: &mut Comparison, sides: &Sides<'_>) {
    let sides = sides.within("Healthcheck");
    let mut fields = union(sides.old, sides.new);
    fields.extend(read::keys(sides.new_default));
    fields.sort_unstable();
    fields.dedup();
    for field in fields {
        sides.within(field).by_image(comparison, &format!("Config.Healthcheck.{field}"));
    }
}

/// Entry point and command follow the image together: the image's command is inherited only
/// by a container whose entry point is not its own.
fn command(comparison: &mut Comparison, sides: &Sides<'_>) {
    let entrypoint = sides.within("Entrypoint");
    let cmd = sides.within("Cmd");
    // A cleared command shows that the entry point was given, though it equals the image's.
    let cleared = read::is_nothing(cmd.old) && !read::is_nothing(cmd.old_default);
    let entrypoint_is_default = entrypoint.is_default() && !cleared;
    let expected = if entrypoint_is_default { entrypoint.new_default } else { entrypoint.old };
    comparison.equal("Config.Entrypoint", expected, entrypoint.new);
    // `[]` takes the image's entry point away and keeps its command; null is what `[""]`
    // leaves, and that clears the command too.
    let empty_list = entrypoint.old.is_array() && read::is_nothing(entrypoint.old);
    let inherits = cmd.is_default() && (entrypoint_is_default || empty_list);
    let expected = if inherits { cmd.new_default } else { cmd.old };
    comparison.equal("Config.Cmd", expected, cmd.new);
}

fn exposed(comparison: &mut Comparison, sides: &Sides<'_>, inputs: &SpecInputs<'_>) {
    let ports = sides.within("ExposedPorts");
    let published = &inputs.old["HostConfig"]["PortBindings"];
    let mut expected = read::keys(ports.new_default);
    expected.extend(
        read::keys(ports.old).into_iter().filter(|port| {
            !read::has_key(ports.old_default, port) || read::has_key(published, port)
        }),
    );
    let mut found = read::keys(ports.new);
    // Whether the manifest's port was to be added shows in HostConfig.PortBindings.
    found.retain(|port| expected.contains(port) || !super::host::is_added(inputs, port));
    comparison.keys("Config.ExposedPorts", &expected, &found);
}

fn volumes(comparison: &mut Comparison, sides: &Sides<'_>) {
    let paths = sides.within("Volumes");
    let mut expected = read::keys(paths.new_default);
    let own = read::keys(paths.old);
    expected.extend(own.into_iter().filter(|path| !read::has_key(paths.old_default, path)));
    comparison.keys("Config.Volumes", &expected, &read::keys(paths.new));
}

/// A host name that the engine made up is made up again; see [`read::hostname_is_assigned`].
fn hostname(comparison: &mut Comparison, container: &Value, inputs: &SpecInputs<'_>) {
    if !read::hostname_is_assigned(inputs.old) {
        let (old, new) = (&inputs.old["Config"], &container["Config"]);
        comparison.equal("Config.Hostname", &old["Hostname"], &new["Hostname"]);
    } else if !read::hostname_is_assigned(container) {
        let short_id = json!(read::short_id(container));
        comparison.equal("Config.Hostname", &short_id, &container["Config"]["Hostname"]);
    }
    if NetworkMode::of(inputs.old) != NetworkMode::Container {
        let (old, new) = (&inputs.old["Config"], &container["Config"]);
        comparison.equal("Config.Domainname", &old["Domainname"], &new["Domainname"]);
    }
}
