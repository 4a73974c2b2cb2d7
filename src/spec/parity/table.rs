//! The table of what may differ between the old container and the next one. A field that is
//! not here must be equal.
//!
//! Names are those of the engine's inspection, API v1.41 to v1.50.

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The fields inside are looked up one by one.
    Within,
    /// The engine decides it, for each container or at each start: not compared.
    Assigned,
    /// What was said must be equal; where the old container says nothing (an older engine made
    /// it), the engine fills in its default.
    FilledIn,
    /// Nothing and zero mean different things here: equal to the letter.
    Exact,
    /// Not simply equal: compared by the function that the third column names.
    Apart,
}

/// Field, rule, why.
pub(super) const TABLE: &[(&str, Rule, &str)] = &[
    // The container itself.
    ("Id", Rule::Assigned, "each container has its own"),
    ("Name", Rule::Assigned, "a temporary one until rename_next"),
    ("Created", Rule::Assigned, "a time"),
    ("State", Rule::Assigned, "one runs, the other was never started"),
    ("Image", Rule::Assigned, "the new image; create_next compares it with what was pulled"),
    ("ImageManifestDescriptor", Rule::Assigned, "follows the image"),
    ("Path", Rule::Assigned, "follows from Config.Entrypoint and Config.Cmd"),
    ("Args", Rule::Assigned, "follows from Config.Entrypoint and Config.Cmd"),
    ("ResolvConfPath", Rule::Assigned, "holds the id"),
    ("HostnamePath", Rule::Assigned, "holds the id"),
    ("HostsPath", Rule::Assigned, "holds the id"),
    ("LogPath", Rule::Assigned, "holds the id"),
    ("RestartCount", Rule::Assigned, "of this container's life"),
    ("Driver", Rule::Assigned, "the engine's storage of the day"),
    ("Platform", Rule::Assigned, "follows the image"),
    ("MountLabel", Rule::Assigned, "SELinux; follows from HostConfig.SecurityOpt"),
    ("ProcessLabel", Rule::Assigned, "SELinux; follows from HostConfig.SecurityOpt"),
    ("AppArmorProfile", Rule::Assigned, "set at start; follows from HostConfig.SecurityOpt"),
    ("ExecIDs", Rule::Assigned, "commands that run in it now"),
    ("SizeRw", Rule::Assigned, "a measurement"),
    ("SizeRootFs", Rule::Assigned, "a measurement"),
    ("GraphDriver", Rule::Assigned, "paths of its own layer"),
    ("Storage", Rule::Assigned, "paths of its own layer, newer engines"),
    ("Mounts", Rule::Apart, "host::mounts: by destination"),
    // What the operator and the image said of the process.
    ("Config", Rule::Within, ""),
    ("Config.Image", Rule::Apart, "config::compare: meant to change"),
    ("Config.Labels", Rule::Apart, "config::labels: from the image, and ours"),
    ("Config.Env", Rule::Apart, "config::environment: from the image"),
    ("Config.User", Rule::Apart, "config::by_image"),
    ("Config.WorkingDir", Rule::Apart, "config::by_image"),
    ("Config.StopSignal", Rule::Apart, "config::by_image"),
    ("Config.Healthcheck", Rule::Apart, "config::by_image: field by field"),
    ("Config.Shell", Rule::Apart, "config::by_image: shown by some engines only"),
    ("Config.OnBuild", Rule::Apart, "config::by_image: shown by some engines only"),
    ("Config.Entrypoint", Rule::Apart, "config::command"),
    ("Config.Cmd", Rule::Apart, "config::command"),
    ("Config.ArgsEscaped", Rule::Assigned, "how the image writes its Cmd"),
    ("Config.ExposedPorts", Rule::Apart, "config::exposed: from the image"),
    ("Config.Volumes", Rule::Apart, "config::volumes: from the image"),
    ("Config.Hostname", Rule::Apart, "config::hostname: the engine's own when none was given"),
    ("Config.Domainname", Rule::Apart, "config::hostname"),
    ("Config.MacAddress", Rule::Apart, "networks::compare: each network's from API 1.44 on"),
    ("Config.StopTimeout", Rule::Exact, "0 kills at once, nothing waits 10 s"),
    // What the operator said of its place on the host.
    ("HostConfig", Rule::Within, ""),
    ("HostConfig.RestartPolicy", Rule::Apart, "host::compare: held back until arm_next"),
    ("HostConfig.Binds", Rule::Apart, "host::binds"),
    ("HostConfig.Mounts", Rule::Apart, "host::asked_mounts"),
    ("HostConfig.Links", Rule::Apart, "host::compare: holds the container's name"),
    ("HostConfig.PortBindings", Rule::Apart, "host::ports: the manifest may add"),
    ("HostConfig.CapAdd", Rule::Apart, "host::capabilities: engines before 20.10 keep short names"),
    ("HostConfig.CapDrop", Rule::Apart, "host::capabilities"),
    ("HostConfig.NetworkMode", Rule::Apart, "host::compare: `default` is `bridge`"),
    ("HostConfig.LogConfig", Rule::Within, ""),
    ("HostConfig.LogConfig.Type", Rule::FilledIn, "the engine's default driver"),
    ("HostConfig.LogConfig.Config", Rule::Apart, "host::logging: the engine adds its defaults"),
    ("HostConfig.ConsoleSize", Rule::Assigned, "the terminal that it was created from"),
    ("HostConfig.Init", Rule::Exact, "nothing follows the engine's setting, false does not"),
    ("HostConfig.MemorySwappiness", Rule::Exact, "0 forbids swapping, nothing does not"),
    ("HostConfig.MaskedPaths", Rule::Apart, "host::paths: none is not nothing"),
    ("HostConfig.ReadonlyPaths", Rule::Apart, "host::paths: none is not nothing"),
    ("HostConfig.CgroupnsMode", Rule::FilledIn, "engines before 20.10 don't know it"),
    ("HostConfig.IpcMode", Rule::FilledIn, "older engines leave it empty"),
    ("HostConfig.Runtime", Rule::FilledIn, "older engines leave it empty"),
    ("HostConfig.ShmSize", Rule::FilledIn, "older engines leave it 0"),
    // Networks: what was configured is compared apart, the rest is this run's.
    ("NetworkSettings", Rule::Within, ""),
    ("NetworkSettings.Networks", Rule::Apart, "networks::compare: by name"),
    ("NetworkSettings.Bridge", Rule::Assigned, "at start"),
    ("NetworkSettings.SandboxID", Rule::Assigned, "at start"),
    ("NetworkSettings.SandboxKey", Rule::Assigned, "at start"),
    ("NetworkSettings.HairpinMode", Rule::Assigned, "at start"),
    ("NetworkSettings.LinkLocalIPv6Address", Rule::Assigned, "at start"),
    ("NetworkSettings.LinkLocalIPv6PrefixLen", Rule::Assigned, "at start"),
    ("NetworkSettings.Ports", Rule::Assigned, "at start; follows from HostConfig.PortBindings"),
    ("NetworkSettings.SecondaryIPAddresses", Rule::Assigned, "at start"),
    ("NetworkSettings.SecondaryIPv6Addresses", Rule::Assigned, "at start"),
    ("NetworkSettings.EndpointID", Rule::Assigned, "at start"),
    ("NetworkSettings.Gateway", Rule::Assigned, "at start"),
    ("NetworkSettings.GlobalIPv6Address", Rule::Assigned, "at start"),
    ("NetworkSettings.GlobalIPv6PrefixLen", Rule::Assigned, "at start"),
    ("NetworkSettings.IPAddress", Rule::Assigned, "at start"),
    ("NetworkSettings.IPPrefixLen", Rule::Assigned, "at start"),
    ("NetworkSettings.IPv6Gateway", Rule::Assigned, "at start"),
    ("NetworkSettings.MacAddress", Rule::Assigned, "at start"),
];

/// Fields whose values are never shown: each may hold a password (I10).
const SECRET: &[&str] = &[
    "Config.Env",
    "Config.Labels",
    "Config.Cmd",
    "Config.Entrypoint",
    "Config.Healthcheck.Test",
    "HostConfig.Annotations",
    "HostConfig.LogConfig.Config",
    "DriverConfig.Options",
    "VolumeOptions.Labels",
];

/// How to compare the field; none when it must simply be equal.
pub(super) fn rule(field: &str) -> Option<Rule> {
    TABLE.iter().find(|(name, _, _)| *name == field).map(|(_, rule, _)| *rule)
}

/// Whether the field's value must not be shown.
pub(super) fn is_secret(field: &str) -> bool {
    SECRET.iter().any(|secret| field.contains(secret))
}
