//! The Docker engines of other Debians, each on a network of its own, in which the test and the
//! product that it starts are, as on a host of that Debian.
//!
//! ```text
//! if other_engine::here(Suite::Trixie) {
//!     other_engine::run(Suite::Trixie, Store::Classic, |engine| {
//!         let world = World::build("1.9.6").on(engine).start();
//!     });
//! }
//! ```

use std::fs::File;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::private_engine::Kind;
use super::{Fixture, PrivateEngine, is_full, require};

/// A Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Debian 13, with Docker 26.
    Trixie,
    /// Debian unstable, with Docker 28.
    Sid,
}

/// Where the engine keeps its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Its own.
    Classic,
    /// containerd's (`containerd-snapshotter`), where an image's id is the digest of its manifest.
    Containerd,
}

impl Suite {
    /// As Debian calls it.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Trixie => "trixie",
            Suite::Sid => "sid",
        }
    }

    /// Its root directory; in the long run it is made where it is not there.
    pub(super) fn root(self) -> Result<PathBuf, String> {
        let place = std::env::var_os("PAYRAM_ENGINES_DIR")
            .map_or_else(|| PathBuf::from("/var/tmp/payram-updater-engines"), PathBuf::from);
        let root = place.join(self.name());
        if root.join(".made").exists() {
            return Ok(root);
        }
        if !is_full() {
            return Err(format!("tests/engines/make {} was not run", self.name()));
        }
        let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/make");
        let made = Command::new(make).arg(self.name()).stderr(Stdio::inherit()).output();
        match made {
            Ok(made) if made.status.success() => Ok(root),
            Ok(made) => {
                Err(format!("tests/engines/make {} ended with {}", self.name(), made.status))
            }
            Err(error) => Err(format!("tests/engines/make: {error}")),
        }
    }
}

/// Whether all is here that a test on this engine needs.
pub fn here(suite: Suite) -> bool {
    require("docker") && require("root") && require(&format!("engine-{}", suite.name()))
}

/// Runs a test on an engine that is started for it, on its network.
///
/// # Panics
/// As the test does.
pub fn run(suite: Suite, store: Store, test: impl FnOnce(&PrivateEngine) + Send) {
    // Looked for on this host's network, where the registry is started if it is dead.
    let registry = Fixture::get().registry();
    let debian = suite.root().expect("it was required");
    let in_containerd = store == Store::Containerd;
    let engine =
        PrivateEngine::of(Kind::Other { debian, stores_in_containerd: in_containerd }, false);
    let network = PathBuf::from(format!("/proc/{}/ns/net", engine.pid()));
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (engine, network) = (&engine, &network);
    thread::scope(|scope| {
        let listener = scope.spawn(move || {
            enter(network);
            TcpListener::bind(registry).expect("the registry's address there")
        });
        let listener = listener.join().expect("a listener");
        // Ends with the test's process.
        thread::spawn(move || forward(&listener, registry));
        // A thread, and all that it starts, is on one network; this one stays on its own.
        let tested = thread::Builder::new().name(name).spawn_scoped(scope, move || {
            enter(network);
            test(engine);
        });
        if let Err(panic) = tested.expect("a thread").join() {
            eprintln!("--- {} ---\n{}", suite.name(), engine.docker(&["version"]));
            std::panic::resume_unwind(panic);
        }
    });
}

fn enter(network: &Path) {
    let network = File::open(network).expect("the engine's network");
    setns(network, CloneFlags::CLONE_NEWNET).expect("root may enter it");
}

/// Hands every connection on to the same address of this host's network.
fn forward(listener: &TcpListener, address: &'static str) {
    for client in listener.incoming().flatten() {
        thread::spawn(move || {
            let Ok(server) = TcpStream::connect(address) else { return };
            let twin = |stream: &TcpStream| stream.try_clone().expect("a second handle");
            let (from, to) = (twin(&client), twin(&server));
            thread::spawn(move || pass_on(from, to));
            pass_on(server, client);
        });
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    // Whichever side hangs up, the other one hears of it.
    io::copy(&mut from, &mut to).ok();
    to.shutdown(Shutdown::Write).ok();
}
