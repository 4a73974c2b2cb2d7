//! What the tests of the specification are made with: the engine's containers, images, networks
//! and volumes, removed again at the end, and the raw Engine API.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use payram_updater::machine::facts::Overlay;
use payram_updater::spec::parity;
use payram_updater::spec::{self, NextSpec, SpecInputs};
use serde_json::{Value, json};

/// Every container, image, network and volume of one test, by a prefix that no other uses.
pub struct Bench {
    prefix: String,
    api: String,
    pub images: [String; 2],
    networks: Vec<String>,
    /// In the order in which they were made.
    containers: Vec<String>,
    volumes: Vec<String>,
    overlay: Overlay,
    labels: Vec<(String, String)>,
}

/// Runs a command, feeding it nothing; answers its output when it succeeded.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

pub fn docker(arguments: &[&str]) -> String {
    run("docker", arguments).unwrap_or_else(|error| panic!("docker {arguments:?}: {error}"))
}

/// Sends one request to the engine, as the product's client does: raw JSON both ways.
fn ask(method: &str, path: &str, body: &Value) -> (u16, Value) {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let socket = host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock");
    let mut stream = UnixStream::connect(socket).expect("the engine's socket");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a deadline");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    // HTTP/1.0: the answer ends with the connection.
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

impl Bench {
    /// Two images with different defaults; none when the machine lacks what that needs.
    pub fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let busybox =
            ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
        let server = run("docker", &["version", "--format", "{{.Server.APIVersion}}"]);
        let (Some(busybox), Ok(api)) = (busybox, server) else {
            let required = std::env::var("PAYRAM_TEST_REQUIRE").unwrap_or_default();
            assert!(!required.contains("docker"), "docker or busybox-static is missing");
            println!("skipped: needs docker (and busybox-static)");
            return None;
        };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("payram-test-spec-{}-{number}", std::process::id());
        let bench = Self {
            images: [format!("{prefix}:1"), format!("{prefix}:2")],
            prefix,
            api,
            networks: Vec::new(),
            containers: Vec::new(),
            volumes: Vec::new(),
            overlay: Overlay::default(),
            labels: vec![("com.payram.updater.hop".into(), "job/1".into())],
        };
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("bin")).expect("bin");
        std::fs::copy(busybox, root.path().join("bin/busybox")).expect("busybox");
        for applet in ["sh", "sleep"] {
            std::os::unix::fs::symlink("busybox", root.path().join("bin").join(applet))
                .expect("an applet");
        }
        let archive = root.path().join("root.tar");
        let (archive, directory) =
            (archive.to_str().expect("text"), root.path().to_str().expect("text"));
        run("tar", &["-C", directory, "-cf", archive, "bin"]).expect("an archive");
        let import = |changes: &[&str], image: &str| {
            let mut arguments = vec!["import"];
            arguments.extend(changes.iter().flat_map(|change| ["-c", change]));
            arguments.extend([archive, image]);
            docker(&arguments);
        };
        import(
            &[
                "ENV A=1 B=two GONE=soon",
                "ENTRYPOINT [\"/bin/sh\", \"-c\"]",
                "CMD [\"sleep 1000\"]",
                "VOLUME /data",
                "EXPOSE 80",
                "LABEL who=image version=1",
                "USER 0",
                "WORKDIR /bin",
            ],
            &bench.images[0],
        );
        import(
            &[
                "ENV A=9 B=zwei C=new",
                "ENTRYPOINT [\"/bin/busybox\", \"sh\", \"-c\"]",
                "CMD [\"sleep 2000\"]",
                "VOLUME [\"/data\", \"/more\"]",
                "EXPOSE 80 81",
                "LABEL who=image version=2",
                "USER 0:0",
                "WORKDIR /",
                "HEALTHCHECK --retries=7 CMD true",
            ],
            &bench.images[1],
        );
        Some(bench)
    }

    fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    /// A network with a subnet that is free; answers the name and the subnet's first three numbers.
    pub fn network(&mut self, what: &str) -> (String, String) {
        let name = self.name(what);
        let start = std::process::id();
        let made = (0..200).find_map(|attempt| {
            let number = (start.wrapping_mul(31) + attempt * 7) % 16_000;
            let net = format!("10.{}.{}", 190 + number / 256, number % 256);
            run("docker", &["network", "create", "--subnet", &format!("{net}.0/24"), &name])
                .is_ok()
                .then_some(net)
        });
        self.networks.push(name.clone());
        (name, made.expect("a free subnet"))
    }

    pub fn volume(&mut self, what: &str) -> String {
        let name = self.name(what);
        self.volumes.push(name.clone());
        name
    }

    /// Starts a container from the first image; answers its name.
    pub fn start(&mut self, what: &str, settings: &[&str], command: &[&str]) -> String {
        let name = self.name(what);
        self.containers.push(name.clone());
        let image = self.images[0].clone();
        let mut arguments = vec!["run", "-d", "--name", &name];
        arguments.extend(settings);
        arguments.push(&image);
        arguments.extend(command);
        docker(&arguments);
        name
    }

    pub fn inspect(&self, kind: &str, name: &str) -> Value {
        let (status, answer) =
            ask("GET", &format!("/v{}/{kind}/{name}/json", self.api), &Value::Null);
        assert_eq!(status, 200, "inspect {name}: {answer}");
        answer
    }

    /// Creates a container from a raw body; answers its name.
    pub fn create(&mut self, what: &str, body: &Value) -> String {
        let name = self.name(what);
        self.containers.push(name.clone());
        let path = format!("/v{}/containers/create?name={name}", self.api);
        let (status, answer) = ask("POST", &path, body);
        assert_eq!(status, 201, "create {name}: {answer}");
        name
    }

    /// Builds, creates, attaches and inspects the next container.
    pub fn upgrade(&mut self, old: &str) -> Upgraded {
        let old = self.inspect("containers", old);
        let images = self.images.clone().map(|image| self.inspect("images", &image));
        let [old_image, new_image] = images;
        let mut upgraded = Upgraded {
            old,
            old_image,
            new_image,
            reference: self.images[1].clone(),
            overlay: self.overlay.clone(),
            labels: self.labels.clone(),
            api: self.api.clone(),
            name: String::new(),
            container: Value::Null,
        };
        let NextSpec { create_body, further_networks, .. } =
            spec::next(&upgraded.inputs()).expect("a specification");
        upgraded.name = self.create(&format!("next-{}", self.containers.len()), &create_body);
        for (network, endpoint) in further_networks {
            let body = json!({ "Container": upgraded.name, "EndpointConfig": endpoint });
            let path = format!("/v{}/networks/{network}/connect", self.api);
            let (status, answer) = ask("POST", &path, &body);
            assert_eq!(status, 200, "connect {network}: {answer}");
        }
        upgraded.container = self.inspect("containers", &upgraded.name);
        upgraded
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The newest first: a volume that is anonymous in the old container goes with the old
        // one, once nothing else names it. What fails here must not hide the test's own end.
        let remove = |arguments: &[&str]| {
            if let Err(error) = run("docker", arguments) {
                println!("left behind: docker {arguments:?}: {error}");
            }
        };
        for name in self.containers.iter().rev() {
            remove(&["rm", "-f", "-v", name]);
        }
        for name in &self.networks {
            remove(&["network", "rm", name]);
        }
        for name in &self.volumes {
            remove(&["volume", "rm", "-f", name]);
        }
        for name in &self.images {
            remove(&["rmi", "-f", name]);
        }
    }
}

/// An old container, both images, and the container that was created from them.
pub struct Upgraded {
    old: Value,
    old_image: Value,
    new_image: Value,
    reference: String,
    overlay: Overlay,
    labels: Vec<(String, String)>,
    api: String,
    pub name: String,
    pub container: Value,
}

impl Upgraded {
    fn inputs(&self) -> SpecInputs<'_> {
        SpecInputs {
            old: &self.old,
            old_image: &self.old_image,
            new_image: &self.new_image,
            image_reference: &self.reference,
            overlay: &self.overlay,
            labels: &self.labels,
            api_version: &self.api,
        }
    }

    pub fn differences(&self, container: &Value) -> Vec<String> {
        let found = parity::differences(container, &self.inputs());
        found.iter().map(ToString::to_string).collect()
    }

    /// What is reported when one field of the created container is another.
    pub fn with(&self, pointer: &str, value: Value) -> Vec<String> {
        let mut container = self.container.clone();
        *container.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        self.differences(&container)
    }

    pub fn assert_parity(&self) {
        assert_eq!(self.differences(&self.container), Vec::<String>::new());
    }
}
