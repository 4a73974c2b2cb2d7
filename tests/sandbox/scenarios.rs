//! The upgrades and recoveries that are killed, and how each ends when nobody kills it.

use std::fs;

use serde_json::{Value, json};

use crate::shop::Shop;

/// An upgrade from 1.9.6 to a 2.0.0 of this kind, or what a person does about one that failed.
pub struct Scenario {
    pub name: &'static str,
    pub release: Value,
    /// What is unusual about 1.9.6.
    pub old: Value,
    /// Files of the shop, below its mount, that are as they were when 1.9.6 serves again.
    pub files: Vec<&'static str>,
    /// What `recover` is asked for, once the upgrade has stopped for a person: that is what is
    /// killed then, and not the upgrade.
    pub recover: Option<Value>,
    /// `HEALTH_TIMEOUT_SECONDS` from then on.
    pub patience: Option<&'static str>,
    /// What the engine does wrong besides.
    pub faults: Vec<Value>,
    pub phase: &'static str,
    /// `VERIFY_SECONDS`.
    pub watch: &'static str,
    /// `PROBATION_MINUTES`.
    pub probation: &'static str,
    /// Whether that watch finds something, so that the way back is kept.
    pub is_troubled: bool,
    /// How many directories of a failed version's database are kept (I7).
    pub kept: usize,
}

/// What is in a file of the shop.
const OF_THE_SHOP: &str = "of the shop\n";

/// A file in the database's directory without which 1.9.6 is ill, and one beside it.
const KEY: &str = "db/postgres/shop.key";
const KEY_STORE: &str = "keystore.json";

/// The engine that drops connections.
pub const DROPS: &str = "engine drops a connection";

impl Scenario {
    fn new(name: &'static str, release: Value, phase: &'static str, kept: usize) -> Self {
        let (faults, watch, probation, is_troubled) = (Vec::new(), "1", "0", false);
        let (old, files, recover, patience) = (json!({}), Vec::new(), None, None);
        Self {
            name,
            release,
            old,
            files,
            recover,
            patience,
            faults,
            phase,
            watch,
            probation,
            is_troubled,
            kept,
        }
    }

    fn watched(self, minutes: &'static str) -> Self {
        Self { probation: minutes, ..self }
    }

    /// A shop on 1.9.6 that serves; or, where a recovery is killed, one that waits for a person.
    pub fn open(&self) -> Shop {
        let releases = json!({"1.9.6": self.old, "2.0.0": self.release});
        let mut shop = match self.files.contains(&KEY_STORE) {
            true => Shop::open_on_disk(releases),
            false => Shop::open(releases),
        };
        shop.set("VERIFY_SECONDS", self.watch);
        shop.set("PROBATION_MINUTES", self.probation);
        shop.wait_serves("1.9.6");
        for file in &self.files {
            fs::write(shop.in_mount(file), OF_THE_SHOP).expect("a file of the shop");
        }
        if self.recover.is_some() {
            let daemon = shop.daemon();
            let (exit, said) = shop.upgrade("2.0.0");
            assert_eq!(exit, Some(5), "{}: {said}", self.name);
            drop(daemon);
        }
        if let Some(patience) = self.patience {
            shop.set("HEALTH_TIMEOUT_SECONDS", patience);
        }
        shop
    }

    /// Asks a daemon for what is killed; whether it was accepted. A daemon that is killed while it
    /// answers does not say.
    pub fn begin(&self, shop: &Shop) -> bool {
        match &self.recover {
            Some(ways) => shop.recover(ways),
            None => shop.begin(),
        }
    }

    /// Files of the shop that are not as they were.
    pub fn changed_files(&self, shop: &Shop) -> Vec<String> {
        let is = |file: &str| fs::read_to_string(shop.in_mount(file)).unwrap_or_default();
        let changed = self.files.iter().filter(|file| is(file) != OF_THE_SHOP);
        changed.map(|file| format!("{file}: {:?}", is(file))).collect()
    }
}

/// What a failed version changed beside the database, and ways of a person out of a failure.
fn further() -> Vec<Scenario> {
    let inside = |file: &str| format!("/var/lib/payram/{file}");
    let back = |name, release, kept| Scenario::new(name, release, "ROLLED_BACK", kept);
    let takes_the_key = json!({"health": [500], "takesPayments": false, "removes": inside(KEY)});
    let rewrites = json!({"migration": {"schema": true, "fails": true},
                          "takesPayments": false, "rewrites": inside(KEY_STORE)});
    // What only its workers wrote, after a migration: nobody may forget it.
    let migrates = json!({"migration": {"schema": true}, "health": [500], "takesPayments": false,
                          "writesRows": true, "rewrites": inside(KEY_STORE)});
    let mut health = vec![500; 8];
    health.push(200);
    let slow = json!({"migration": {"schema": true, "rows": 10}, "health": health});
    let carries = json!({"restoreDatabase": true, "carryRows": true});
    vec![
        Scenario {
            old: json!({"needs": inside(KEY)}),
            files: vec![KEY],
            ..back("old one is ill, too", takes_the_key, 1)
        },
        Scenario { files: vec![KEY_STORE], ..back("files changed", rewrites, 1) },
        Scenario {
            files: vec![KEY_STORE],
            recover: Some(carries),
            ..back("recover, carrying", migrates, 1)
        },
        Scenario {
            recover: Some(json!({"keepNew": true})),
            patience: Some("60"),
            ..Scenario::new("recover, keeping", slow, "VERIFIED", 0)
        },
    ]
}

pub fn all() -> Vec<Scenario> {
    let mut all = upgrades();
    all.extend(further());
    all
}

fn upgrades() -> Vec<Scenario> {
    let schema = json!({"migration": {"schema": true}});
    let fails = |name, release| Scenario::new(name, release, "ROLLED_BACK", 0);
    let ill = json!({"health": [500], "takesPayments": false});
    let mut ill_with_rows = ill.clone();
    ill_with_rows["writesRows"] = json!(true);
    // It writes nothing: one whose gate a crash made longer may die before its verdict.
    let dies = json!({"exitsAfterMs": 6000, "takesPayments": false});
    let broken = json!({"migration": {"schema": true, "fails": true}});
    vec![
        Scenario::new("good upgrade", schema.clone(), "VERIFIED", 0),
        fails("health 500", ill),
        fails("crash at start", json!({"exitsAtStart": true})),
        fails("wrong version", json!({"reports": "1.0.0", "takesPayments": false})),
        Scenario::new("migration fails", broken, "ROLLED_BACK", 1),
        fails("pull fails", json!({"pullFails": "unexpected EOF"})),
        // Its watch spans several lives of the core: one as long as a life might see a single one.
        Scenario {
            watch: "4",
            ..fails("core dies", json!({"coreDiesEveryMs": 1000, "takesPayments": false}))
        },
        fails("serves elsewhere", json!({"servesElsewhere": true, "takesPayments": false})),
        Scenario::new("workers write", ill_with_rows, "ROLLED_BACK", 0),
        Scenario::new("probation", schema.clone(), "VERIFIED", 0).watched("0.02"),
        Scenario {
            is_troubled: true,
            ..Scenario::new("dies in the probation", dies, "VERIFIED", 0).watched("0.2")
        },
        Scenario {
            faults: vec![
                json!({"on": "create", "do": "drop-after"}),
                json!({"on": "stop", "do": "drop-before"}),
                json!({"on": "start", "do": "drop-after"}),
            ],
            ..Scenario::new(DROPS, schema, "VERIFIED", 0)
        },
    ]
}
