//! What an interrupted run removes: the daemon, the containers, the directory. A run that ends
//! by itself, or by a panic, removes them by dropping its [`World`].

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::support::World;

/// Looks in a row that find no container, before it is believed that none is being made.
const EMPTY_LOOKS: u32 = 3;

const LOOK_EVERY: Duration = Duration::from_millis(300);

/// What is to be ended and removed besides.
#[derive(Clone)]
pub struct Guard {
    processes: Arc<Mutex<Vec<u32>>>,
}

impl Guard {
    /// This process of ours too.
    pub fn also_end(&self, pid: u32) {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
    }
}

/// On Ctrl-C or SIGTERM: everything of this world goes, then this process.
pub fn on_interrupt(world: &World) -> Guard {
    let guard = Guard { processes: Arc::default() };
    let (root, name, data) = (world.path(""), world.name.clone(), world.data_dir());
    let ours = guard.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return eprintln!("an interrupt would leave things behind: {error}"),
        };
        runtime.block_on(interrupted());
        eprintln!("interrupted: removing {name} and {}", root.display());
        remove(&ours, &root, &[format!("name={name}"), format!("volume={}", data.display())]);
        std::process::exit(130);
    });
    guard
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut int), Ok(mut term)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}

fn remove(guard: &Guard, root: &PathBuf, filters: &[String]) {
    for pid in guard.processes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let pid = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended already.
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
    }
    let mut empty = 0;
    while empty < EMPTY_LOOKS {
        let ids: Vec<String> = filters.iter().flat_map(|filter| containers(filter)).collect();
        empty = if ids.is_empty() { empty + 1 } else { 0 };
        if !ids.is_empty() {
            // What is gone already is an error to it, and found gone by the next look.
            Command::new("docker").args(["rm", "--force", "--volumes"]).args(&ids).output().ok();
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    if let Err(error) = std::fs::remove_dir_all(root) {
        eprintln!("remove {}: {error}", root.display());
    }
}

fn containers(filter: &str) -> Vec<String> {
    let found = Command::new("docker")
        .args(["ps", "--all", "--quiet", "--no-trunc", "--filter", filter])
        .output();
    let found = found.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&found).lines().map(str::to_owned).collect()
}
