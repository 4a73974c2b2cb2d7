//! An image of a test's own: a version of the stand-in with further lines of a Dockerfile, in the
//! fixture's registry under a tag that no other test knows.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::Fixture;

/// The image; what the engine has of it is removed with the test.
pub struct OwnImage {
    /// Its tag.
    pub tag: String,
    /// Its full name.
    pub image: String,
}

impl OwnImage {
    /// Derives it from a version and pushes it. Without `keeps_version` it reports its tag as its
    /// version.
    pub fn derived(from: &str, lines: &str, keeps_version: bool) -> Self {
        // The end of it is random; above every tag of the fixture.
        let (_, unique) = uuid::Uuid::now_v7().as_u64_pair();
        let tag = format!("9.9.{}", unique & 0xffff_ffff);
        let own = Self { image: Fixture::get().image(&tag), tag };
        let base = Fixture::get().image(from);
        docker(&["pull", "--quiet", &base], "");
        let version = match keeps_version {
            true => String::new(),
            false => format!(
                "RUN sed -i 's/^VERSION=.*/VERSION={}/' /opt/payram/release/release\n",
                own.tag
            ),
        };
        let unique = format!("LABEL test.image={}\n", own.tag);
        let file = format!("FROM {base}\n{version}{unique}{lines}\n");
        docker(&["build", "--quiet", "--network", "none", "--tag", &own.image, "-"], &file);
        docker(&["push", "--quiet", &own.image], "");
        docker(&["image", "rm", &own.image], "");
        own
    }
}

impl Drop for OwnImage {
    fn drop(&mut self) {
        // One that was refused before the pull is not there.
        Command::new("docker").args(["image", "rm", &self.image]).output().ok();
    }
}

fn docker(args: &[&str], input: &str) {
    let mut child = Command::new("docker")
        .args(args)
        .env("DOCKER_BUILDKIT", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("docker starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    // A command that reads nothing may have ended already.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    let output = child.wait_with_output().expect("docker ends");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {args:?}: {error}");
}
