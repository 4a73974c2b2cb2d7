//! The upgrades that are killed, and how each ends when nobody kills it.

use serde_json::{Value, json};

/// An upgrade from 1.9.6 to a 2.0.0 of this kind.
pub struct Scenario {
    pub name: &'static str,
    pub release: Value,
    /// What the engine does wrong besides.
    pub faults: Vec<Value>,
    pub phase: &'static str,
    /// How many directories of a failed version's database are kept (I7).
    pub kept: usize,
}

/// The engine that drops connections.
pub const DROPS: &str = "engine drops a connection";

pub fn all() -> Vec<Scenario> {
    let scenario =
        |name, release, phase, kept| Scenario { name, release, faults: Vec::new(), phase, kept };
    let schema = json!({"migration": {"schema": true}});
    vec![
        scenario("good upgrade", schema.clone(), "VERIFIED", 0),
        scenario("health 500", json!({"health": [500], "takesPayments": false}), "ROLLED_BACK", 0),
        scenario("crash at start", json!({"exitsAtStart": true}), "ROLLED_BACK", 0),
        scenario(
            "wrong version",
            json!({"reports": "1.0.0", "takesPayments": false}),
            "ROLLED_BACK",
            0,
        ),
        scenario(
            "migration fails",
            json!({"migration": {"schema": true, "fails": true}}),
            "ROLLED_BACK",
            1,
        ),
        scenario("pull fails", json!({"pullFails": "unexpected EOF"}), "ROLLED_BACK", 0),
        Scenario {
            faults: vec![
                json!({"on": "create", "do": "drop-after"}),
                json!({"on": "stop", "do": "drop-before"}),
                json!({"on": "start", "do": "drop-after"}),
            ],
            ..scenario(DROPS, schema, "VERIFIED", 0)
        },
    ]
}
