//! The upgrades that are killed, and how each ends when nobody kills it.

use serde_json::{Value, json};

use crate::shop::Shop;

/// An upgrade from 1.9.6 to a 2.0.0 of this kind.
pub struct Scenario {
    pub name: &'static str,
    pub release: Value,
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

/// The engine that drops connections.
pub const DROPS: &str = "engine drops a connection";

impl Scenario {
    fn new(name: &'static str, release: Value, phase: &'static str, kept: usize) -> Self {
        let (faults, watch, probation, is_troubled) = (Vec::new(), "1", "0", false);
        Self { name, release, faults, phase, watch, probation, is_troubled, kept }
    }

    fn watched(self, minutes: &'static str) -> Self {
        Self { probation: minutes, ..self }
    }

    /// A shop on 1.9.6 that serves.
    pub fn open(&self) -> Shop {
        let mut shop = Shop::open(json!({"2.0.0": self.release}));
        shop.set("VERIFY_SECONDS", self.watch);
        shop.set("PROBATION_MINUTES", self.probation);
        shop.wait_serves("1.9.6");
        shop
    }
}

pub fn all() -> Vec<Scenario> {
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
