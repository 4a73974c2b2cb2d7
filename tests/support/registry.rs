//! A registry of a test's own, with one image that takes seconds to pull, and that can vanish in
//! the middle of it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Fixture, free_port, wait_until};

/// What the image has of its own: incompressible, and in no other image.
const LAYER_BYTES: usize = 24 * 1024 * 1024;
/// After each piece that is passed on: 64 KiB in 25 ms are 2.5 MB/s.
const PAUSE: Duration = Duration::from_millis(25);
/// From the start of docker-registry to its first answer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The registry, behind a proxy that makes it slow.
pub struct SlowRegistry {
    registry: Child,
    image: String,
    repo: String,
    line: Arc<Line>,
    _storage: tempfile::TempDir,
}

/// The proxy's connections.
#[derive(Default)]
struct Line {
    is_cut: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl SlowRegistry {
    /// A registry that holds a version of the stand-in, with a layer of its own on top.
    pub fn with(tag: &str) -> SlowRegistry {
        let storage = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let registry = start(storage.path(), port);
        let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a port");
        let slow = listener.local_addr().expect("an address").port();
        let line = Arc::new(Line::default());
        let accepting = Arc::clone(&line);
        // Ends with the test's process; it holds no more than a port.
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                accepting.pass_on(client, port);
            }
        });
        let direct = format!("127.0.0.1:{port}/payramapp/payram:{tag}");
        push(tag, &direct, storage.path());
        let repo = format!("127.0.0.1:{slow}/payramapp/payram");
        SlowRegistry { registry, image: format!("{repo}:{tag}"), repo, line, _storage: storage }
    }

    /// For `IMAGE_REPO_OVERRIDE`.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// It is gone, with every connection to it.
    pub fn vanish(&mut self) {
        self.line.cut();
        self.registry.kill().expect("SIGKILL is sent");
        self.registry.wait().expect("it is gone");
    }
}

impl Drop for SlowRegistry {
    fn drop(&mut self) {
        self.line.cut();
        // It may be gone already; either way it is afterwards.
        self.registry.kill().ok();
        self.registry.wait().ok();
        Command::new("docker").args(["image", "rm", &self.image]).output().ok();
    }
}

impl Line {
    fn pass_on(self: &Arc<Self>, client: TcpStream, port: u16) {
        let mut streams = self.streams.lock().expect("not poisoned");
        if self.is_cut.load(Ordering::Relaxed) {
            return;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
        let twin = |stream: &TcpStream| stream.try_clone().expect("a second handle");
        streams.extend([twin(&client), twin(&server)]);
        let (from, to) = (twin(&client), twin(&server));
        std::thread::spawn(move || copy(from, to, None));
        std::thread::spawn(move || copy(server, client, Some(PAUSE)));
    }

    fn cut(&self) {
        let streams = self.streams.lock().expect("not poisoned");
        self.is_cut.store(true, Ordering::Relaxed);
        for stream in streams.iter() {
            // One that has ended already can't be shut down.
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, pause: Option<Duration>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
        // The slowness itself, not a wait for something.
        if let Some(pause) = pause {
            std::thread::sleep(pause);
        }
    }
    to.shutdown(Shutdown::Write).ok();
}

fn start(storage: &Path, port: u16) -> Child {
    let config = storage.join("config.json");
    let settings = serde_json::json!({
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": true}},
        "storage": {"filesystem": {"rootdirectory": storage.join("blobs")}},
        "http": {"addr": format!("127.0.0.1:{port}"), "net": "tcp"},
    });
    std::fs::write(&config, settings.to_string()).expect("a configuration");
    let registry = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .env("OTEL_TRACES_EXPORTER", "none")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker-registry starts");
    wait_until("docker-registry answers", START_LIMIT, || {
        TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
    });
    registry
}

/// Puts a version of the stand-in and a random file into the registry, and nowhere else.
fn push(tag: &str, image: &str, scratch: &Path) {
    let mut random = vec![0; LAYER_BYTES];
    let mut source = std::fs::File::open("/dev/urandom").expect("randomness");
    source.read_exact(&mut random).expect("random bytes");
    let file = scratch.join("layer");
    std::fs::write(&file, random).expect("a file");
    let container = docker(&["create", &Fixture::get().image(tag)]);
    docker(&["cp", &file.display().to_string(), &format!("{container}:/opt/layer")]);
    docker(&["commit", &container, image]);
    docker(&["rm", &container]);
    docker(&["push", "--quiet", image]);
    docker(&["image", "rm", image]);
}

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().expect("docker starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {args:?}: {error}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
