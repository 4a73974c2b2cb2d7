//! Upgrades on an engine of the test's own, in whose midst that engine is lost.

use std::time::Duration;

use payram_updater::machine::Step;
use serde_json::Value;

use super::{Account, Daemon, PrivateEngine, Trap, World, require};

/// From the engine's return to the end of the job.
pub const END_LIMIT: Duration = Duration::from_secs(300);
/// Longer than the engine and the version take to be back.
const PROBATION_MINUTES: &str = "3";
/// The versions that these worlds go to.
const TAGS: [&str; 4] = ["1.9.6", "1.9.7", "9.0.2", "9.0.4"];

/// Where the engine is lost, and how the upgrade may end then.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub step: Step,
    pub target: &'static str,
    ends: &'static [&'static str],
    /// Whether the way back stays: the version was started again in its watch, and the host was
    /// not, as far as the updater can tell.
    is_kept: bool,
}

impl Place {
    /// In a step of an upgrade that ends verified.
    pub const fn forward(step: Step) -> Place {
        Place { step, target: "1.9.7", ends: &["VERIFIED"], is_kept: false }
    }

    /// In the watch after the verdict.
    pub const fn watched() -> Place {
        Place { is_kept: true, ..Place::forward(Step::Probation) }
    }

    /// Before the old container is disarmed it comes back with its engine; a step that is tried
    /// again while its database only just starts is given up.
    pub const fn early(step: Step) -> Place {
        Place { step, target: "1.9.7", ends: &["VERIFIED", "ROLLED_BACK"], is_kept: false }
    }

    /// In a step of the way back from this version.
    pub const fn back(step: Step, target: &'static str) -> Place {
        Place { step, target, ends: &["ROLLED_BACK"], is_kept: false }
    }
}

/// Whether all is here that such a test needs.
pub fn here() -> bool {
    require("docker") && require("dockerd") && require("root")
}

/// An engine that has the versions.
pub fn engine() -> PrivateEngine {
    PrivateEngine::start(&TAGS)
}

/// The same; its containers go on without it.
pub fn live_restoring_engine() -> PrivateEngine {
    PrivateEngine::start_live_restoring(&TAGS)
}

/// A world whose engine is to be lost at a place.
pub struct Outage {
    pub trap: Trap,
    pub account: Account,
    place: Place,
    /// The id of the container from which the upgrade begins.
    pub old: Value,
    pub world: World,
}

impl Outage {
    /// The world and its daemon, before the upgrade begins.
    pub fn prepare(engine: &PrivateEngine, fault: String, place: Place) -> (Outage, Daemon) {
        let minutes = if place.is_kept { PROBATION_MINUTES } else { "0" };
        let world = World::build("1.9.6").on(engine).rows(200);
        let world = world.setting("PROBATION_MINUTES", minutes).start();
        let old = world.container().expect("a container")["Id"].clone();
        let trap = Trap::between(&world);
        let daemon = world.daemon();
        let way = format!("{} to {}", place.step, place.target);
        let account = Account::of(fault, way);
        (Outage { trap, account, place, old, world }, daemon)
    }

    /// The upgrade ends as it may; answers the version that serves.
    pub fn assert_ends(&self, daemon: &Daemon) -> &'static str {
        let Outage { world, account, place, .. } = self;
        let name = account.name();
        let status = daemon.wait_settled(END_LIMIT);
        let phase = status["phase"].as_str().unwrap_or_default();
        assert!(place.ends.contains(&phase), "{name}: {status:#}\n{}", daemon.log());
        let version = if phase == "VERIFIED" { place.target } else { "1.9.6" };
        // An upgrade that was given up before it stopped anything has not waited for that either.
        world.wait_healthy();
        match place.is_kept {
            true => world.assert_way_back_is_kept(version, &name),
            false => world.assert_sound(version, &name),
        }
        if phase == "ROLLED_BACK" {
            let container = world.container().expect("a container");
            assert_eq!(container["Id"], self.old, "{name}: the old one");
        }
        account.close(world, &status, &format!("{version} serves"));
        version
    }

    /// No two containers ran on one database, up to now.
    pub fn assert_never_two(&self) {
        assert_eq!(self.world.two_at_once(), Vec::<String>::new(), "{}", self.account.name());
    }
}
