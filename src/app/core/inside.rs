//! Asks the core of a container that has no network: at its own loopback, from a thread of this
//! program that enters the container's network namespace (setns(2)) and ends there.
//!
//! Called by the driver's rehearsal. A process id may be given to another process at any time, so
//! the namespace is opened first, and then it is seen that the container still has that process and
//! that the namespace is neither this host's nor the shop's: whatever is asked afterwards is asked
//! of the copy, or of nobody.

use std::fs::File;
use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use super::search::search;
use super::{Place, Probe, Silent, addresses, listening};
use crate::engine::{Engine, Inspection};

/// The way into a container's network namespace.
#[derive(Clone, Debug)]
pub struct Door {
    /// The container's.
    id: String,
    /// Its first process.
    pid: u64,
    /// When it was started.
    started_at: String,
    /// The shop's first process.
    shop_pid: Option<u64>,
}

/// Why a container can't be asked from inside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shut {
    /// It does not run as it did: it ended, or was started again.
    #[error("{0}")]
    Gone(String),
    /// This program may not enter, or may not ask there.
    #[error("{0}")]
    Barred(String),
}

/// Which namespace: its device and its number.
type Namespace = (u64, u64);

impl Door {
    /// Of a container that runs, by raw inspections of it and of the shop's.
    ///
    /// # Errors
    /// When it does not run.
    pub fn of(container: &Value, shop: &Value) -> Result<Self, Shut> {
        let pid = |of: &Value| of["State"]["Pid"].as_u64().filter(|pid| *pid > 0);
        let seen = Inspection(container);
        match (container["Id"].as_str(), pid(container), seen.started_at()) {
            (Some(id), Some(first), Some(at)) if seen.runs_steadily() => Ok(Self {
                id: id.to_owned(),
                pid: first,
                started_at: at.to_owned(),
                shop_pid: pid(shop),
            }),
            _ => Err(Shut::Gone(format!("it is {}", seen.status()))),
        }
    }

    /// Opens it, having seen that it leads to the container and nowhere else.
    async fn open(&self, engine: &dyn Engine) -> Result<OwnedFd, Shut> {
        let path = format!("/proc/{}/ns/net", self.pid);
        let barred = |error: std::io::Error| Shut::Barred(format!("open {path}: {error}"));
        let opened = File::open(&path);
        let container = engine.inspect_container(&self.id).await;
        let container = container.map_err(|error| Shut::Barred(error.to_string()))?;
        let Some(container) = container else { return Err(Shut::Gone("it is gone".into())) };
        let seen = Inspection(&container);
        let is_same = container["State"]["Pid"].as_u64() == Some(self.pid)
            && seen.started_at() == Some(self.started_at.as_str())
            && seen.is_up();
        if !is_same {
            return Err(Shut::Gone(format!(
                "it is {}, and not in the run that began",
                seen.status()
            )));
        }
        let opened = opened.map_err(barred)?;
        let found = opened.metadata().map(|meta| (meta.dev(), meta.ino())).map_err(barred)?;
        let others = [Some("self".to_owned()), Some("1".to_owned())].into_iter();
        let others = others.chain([self.shop_pid.map(|pid| pid.to_string())]).flatten();
        let taken: Vec<Namespace> = others.filter_map(|pid| namespace(&pid)).collect();
        // This program's own can always be told.
        if taken.is_empty() || taken.contains(&found) {
            return Err(Shut::Barred(
                "its network namespace is not one of its own: it is the host's or the shop's"
                    .into(),
            ));
        }
        Ok(opened.into())
    }

    /// Runs something whose sockets are all made in the container's network.
    async fn within<T, F>(
        &self,
        engine: &dyn Engine,
        ask: impl FnOnce() -> F + Send + 'static,
    ) -> Result<T, Shut>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let namespace = self.open(engine).await?;
        let (answer, heard) = tokio::sync::oneshot::channel();
        let asking = std::thread::Builder::new().name("rehearsal".into()).spawn(move || {
            // Whoever waited for it may have gone.
            let _ = answer.send(enter_and(&namespace, ask));
        });
        asking.map_err(|error| Shut::Barred(format!("start a thread: {error}")))?;
        match heard.await {
            Ok(answer) => answer,
            Err(_lost) => Err(Shut::Barred("the thread that asks ended without an answer".into())),
        }
    }
}

fn namespace(pid: &str) -> Option<Namespace> {
    let meta = std::fs::metadata(format!("/proc/{pid}/ns/net")).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// The thread never leaves the namespace again: it ends with this.
#[cfg(target_os = "linux")]
fn enter_and<T, F: Future<Output = T>>(
    namespace: &OwnedFd,
    ask: impl FnOnce() -> F,
) -> Result<T, Shut> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let barred =
        |doing: &str, error: &dyn std::fmt::Display| Shut::Barred(format!("{doing}: {error}"));
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| barred("enter the container's network namespace", &error))?;
    // On this thread alone: a runtime's other threads would be somewhere else.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| barred("start a runtime", &error))?;
    Ok(runtime.block_on(ask()))
}

#[cfg(not(target_os = "linux"))]
fn enter_and<T, F: Future<Output = T>>(_: &OwnedFd, _: impl FnOnce() -> F) -> Result<T, Shut> {
    Err(Shut::Barred("a network namespace can be entered on Linux alone".into()))
}

impl Probe {
    /// As [`Probe::find`], of a container that has no network but its own loopback.
    /// `CORE_BASE_URL` lends the scheme and the path; the address is the container's.
    ///
    /// # Errors
    /// When it can't be asked; the inner one when nothing answered as a core.
    pub async fn find_inside(
        &self,
        engine: &dyn Engine,
        door: &Door,
        container: &Value,
    ) -> Result<Result<Place, Silent>, Shut> {
        let groups = match self.groups_inside(container) {
            Ok(groups) => groups,
            Err(silent) => return Ok(Err(silent)),
        };
        let probe = self.clone();
        door.within(engine, move || search(probe, groups)).await
    }

    /// As [`Probe::judge`].
    ///
    /// # Errors
    /// When it can't be asked; the inner one says why it is not to be believed.
    pub async fn judge_inside(
        &self,
        engine: &dyn Engine,
        door: &Door,
        place: &Place,
        (rules, container): (&crate::machine::facts::CoreRules, &Value),
    ) -> Result<Result<String, super::Unfit>, Shut> {
        let (probe, place) = (self.clone(), place.clone());
        let (rules, container) = (rules.clone(), container.clone());
        let ask = move || async move { probe.judge(&place, &rules, &container).await };
        door.within(engine, ask).await
    }

    fn groups_inside(&self, container: &Value) -> Result<addresses::Groups, Silent> {
        let own = json!({"HostConfig": {"NetworkMode": "host"}});
        let listening = listening::ports(container);
        let found = addresses::of(container, &own, self.database_port, listening.as_deref());
        let mut groups = found.map_err(|_| Silent::new("nothing listens in it yet"))?;
        if let Some(base) = &self.base {
            for places in &mut groups {
                places.retain(|place| place.url.scheme() == base.scheme());
                for place in places {
                    place.url.set_path(base.path());
                }
            }
        }
        Ok(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::fake::FakeEngine;

    fn container(pid: u32, at: &str) -> Value {
        json!({"Id": "copy", "State": {"Running": true, "Pid": pid, "StartedAt": at,
            "Status": "running"}})
    }

    const AT: &str = "2026-01-31T12:00:00Z";

    async fn opened(noted: &Value, now: &Value, shop: &Value) -> Result<OwnedFd, Shut> {
        let mut engine = FakeEngine::default();
        engine.inspections.insert("copy".into(), now.clone());
        Door::of(noted, shop)?.open(&engine).await
    }

    #[tokio::test]
    async fn this_hosts_own_network_is_never_entered() {
        // A process of this program: as a number that was given to another process.
        let own = container(std::process::id(), AT);
        let refused = opened(&own, &own, &json!({})).await.expect_err("refused");
        assert!(matches!(&refused, Shut::Barred(why) if why.contains("the host's")), "{refused}");
    }

    #[tokio::test]
    async fn a_container_that_was_started_again_is_another_run() {
        let noted = container(std::process::id(), AT);
        for now in [
            container(std::process::id(), "2026-01-31T12:00:05Z"),
            container(1, AT),
            json!({"Id": "copy", "State": {"Running": false, "Status": "exited"}}),
        ] {
            let refused = opened(&noted, &now, &json!({})).await.expect_err("refused");
            assert!(matches!(&refused, Shut::Gone(_)), "{refused}");
        }
        let gone = json!({"State": {"Running": false, "Status": "exited"}});
        assert!(Door::of(&gone, &json!({})).is_err());
    }

    #[test]
    fn the_base_url_lends_scheme_and_path_and_never_its_address() {
        let base = url::Url::parse("https://shop.example.org:8443/payram").expect("a URL");
        let probe = Probe {
            base: Some(base),
            within: std::time::Duration::from_secs(1),
            database_port: 5432,
        };
        let container = json!({"Config": {"ExposedPorts": {"80/tcp": {}, "5432/tcp": {}}}});
        let groups = probe.groups_inside(&container).expect("places");
        let places: Vec<String> = groups.iter().flatten().map(ToString::to_string).collect();
        assert_eq!(places, ["https://127.0.0.1:80/payram"]);
    }
}
