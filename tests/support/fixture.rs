//! Where the images of the stand-in are, as `tests/fixtures/payram-image/prepare` left them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// The registry and the tags in it.
pub struct Fixture {
    settings: BTreeMap<String, String>,
    tags: Vec<Tag>,
}

/// A line of tags.tsv.
#[derive(Clone, Debug)]
pub struct Tag {
    /// `1.9.6`
    pub tag: String,
    /// `good`, `health-500`, …
    pub behaviour: String,
    /// Whether it takes payments.
    pub takes_payments: bool,
}

impl Fixture {
    /// The fixture, its registry running; or why it can't be used.
    ///
    /// Never builds anything (that takes minutes), but starts a registry that is dead.
    pub fn there() -> Result<&'static Fixture, &'static str> {
        static FIXTURE: OnceLock<Result<Fixture, String>> = OnceLock::new();
        FIXTURE.get_or_init(Fixture::find).as_ref().map_err(String::as_str)
    }

    /// The fixture, for a test that has asked `require("docker")`.
    pub fn get() -> &'static Fixture {
        Fixture::there().unwrap_or_else(|why| panic!("require(\"docker\") comes first: {why}"))
    }

    fn find() -> Result<Fixture, String> {
        let ask = ["version", "--format", "{{.Server.Version}}"];
        run(Command::new("docker").args(ask), "ask the Docker engine")?;
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/payram-image");
        let mut prepare = Command::new(files.join("prepare"));
        let settings = run(prepare.arg("--if-built"), "find the fixture's images")
            .map_err(|why| format!("{why} (tests/run prepares them)"))?
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let tags = read(&files.join("tags.tsv"))?.lines().skip(1).map(Tag::read).collect();
        Ok(Fixture { settings, tags })
    }

    /// `127.0.0.1:PORT/payramapp/payram`
    pub fn repo(&self) -> &str {
        self.setting("PAYRAM_FIXTURE_REPO")
    }

    /// The same tags with PostgreSQL 17 inside: `127.0.0.1:PORT/payramapp/payram17`
    pub fn repo_17(&self) -> &str {
        self.setting("PAYRAM_FIXTURE_REPO_17")
    }

    /// `127.0.0.1:PORT`
    pub fn registry(&self) -> &str {
        self.setting("PAYRAM_FIXTURE_REGISTRY")
    }

    /// `127.0.0.1:PORT/payramapp/payram:TAG`
    pub fn image(&self, tag: &str) -> String {
        format!("{}:{tag}", self.repo())
    }

    /// The id that the engine gives the image of a tag: `sha256:…`.
    pub fn image_id(&self, tag: &str) -> &str {
        self.setting(&format!("PAYRAM_FIXTURE_IMAGE_ID_{}", tag.replace('.', "_")))
    }

    /// The tag that has a behaviour; the first of those that are good.
    pub fn tag_of(&self, behaviour: &str) -> &str {
        let found = self.tags.iter().find(|tag| tag.behaviour == behaviour);
        &found.unwrap_or_else(|| panic!("tags.tsv has no {behaviour}")).tag
    }

    /// All tags.
    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }

    fn setting(&self, key: &str) -> &str {
        self.settings.get(key).unwrap_or_else(|| panic!("fixture.env has no {key}"))
    }
}

impl Tag {
    fn read(line: &str) -> Tag {
        let fields: Vec<&str> = line.split('\t').collect();
        Tag {
            tag: fields[0].to_owned(),
            behaviour: fields[1].to_owned(),
            takes_payments: fields[3] == "yes",
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("read {}: {error}", path.display()))
}

/// What a command prints.
fn run(command: &mut Command, what: &str) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{what}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
