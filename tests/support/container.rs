//! The container of a world: how it is made, of which image, with which mounts; and made again by
//! hand, as an operator without an updater does it. Called by the worlds and by the tests.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::world::{AES_KEY, LABEL, PASSWORD, World, succeed};

/// How the container mounts the directory that holds its database.
#[derive(Clone, Copy)]
pub(super) enum Mounts {
    /// At `/var/lib/payram`, and the database's directory is in it.
    One,
    /// As PayRam's own command: at `/root/payram`, and the database's directory in it once more at
    /// its own path; the log's directory too.
    Nested,
}

impl World {
    pub(super) fn run_container(&self, tag: &str) {
        self.make_container(&["run", "--detach"], &self.name, tag);
    }

    /// A container of another version beside the running one, created and never started, as an
    /// operator prepares it by hand.
    pub fn create_beside(&self, name: &str, tag: &str) {
        self.make_container(&["create"], name, tag);
    }

    fn make_container(&self, how: &[&str], name: &str, tag: &str) {
        let mut environment = BTreeMap::from([
            ("POSTGRES_HOST".to_owned(), "localhost".to_owned()),
            ("POSTGRES_PORT".to_owned(), "5432".to_owned()),
            ("POSTGRES_DATABASE".to_owned(), "payram".to_owned()),
            ("POSTGRES_USERNAME".to_owned(), "payram".to_owned()),
            ("POSTGRES_PASSWORD".to_owned(), PASSWORD.to_owned()),
            ("POSTGRES_SSLMODE".to_owned(), "prefer".to_owned()),
            ("AES_KEY".to_owned(), AES_KEY.to_owned()),
        ]);
        environment.extend(self.environment.clone());
        let mut command = self.docker_client();
        command.args(how).args(["--name", name, "--restart", "unless-stopped"]);
        command.args(["--label", &format!("{LABEL}={}", self.id)]);
        if self.is_published {
            command.args(["--publish", &format!("127.0.0.1:{}:80", self.port)]);
        }
        for (directory, at) in self.mount_points() {
            command.args(["--volume", &format!("{}:{at}", directory.display())]);
        }
        for (key, value) in &environment {
            command.args(["--env", key]).env(key, value);
        }
        command.args(&self.run_args).arg(self.image(tag)).args(&self.command);
        succeed(&mut command);
    }

    /// What is mounted where.
    fn mount_points(&self) -> Vec<(PathBuf, &'static str)> {
        let mut points = match self.mounts {
            Mounts::One => vec![(self.data_dir(), "/var/lib/payram")],
            Mounts::Nested => vec![
                (self.data_dir(), "/root/payram"),
                (self.path("data/db/postgres"), "/var/lib/payram/db/postgres"),
                (self.path("log"), "/var/log/payram"),
            ],
        };
        points.push((self.ack_dir(), "/ack"));
        points
    }

    /// The image of a tag, as this world's container has it.
    pub fn image(&self, tag: &str) -> String {
        format!("{}:{tag}", self.repo)
    }

    /// What an operator does by hand, without an updater: stops and removes the container and
    /// runs another version in its place. Doesn't wait until it is healthy.
    pub fn replace_by_hand(&self, tag: &str) {
        self.docker(&["stop", "--time", "10", &self.name]);
        self.docker(&["rm", &self.name]);
        self.run_container(tag);
    }

    /// Removes a tag's image from the engine, so that the next pull of it is a real one.
    pub fn forget_image(&self, tag: &str) {
        let image = self.image(tag);
        let output = self.docker_client().args(["image", "rm", &image]).output();
        let output = output.expect("docker starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || error.contains("No such image"), "{image}: {error}");
    }
}
