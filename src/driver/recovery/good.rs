//! Where what was good last is no part of the last upgrade's hop: an operator recorded it by
//! `sync` after it, or the upgrade after it never began. That container is started, or none.

use super::rest::{Due, should_serve};
use super::{Decision, Good, Names, Remedy, Seen, Serving, Sight, Stranger, World};

pub(super) fn decide(good: &Good, sight: &Sight) -> Decision {
    let (world, names) = (&sight.world, &sight.names);
    let Good { version, how, .. } = good;
    let why = format!("{version} {how}");
    if world.old == Seen::Running && world.serving == Serving::Old {
        let message = format!("{why} and serves; nothing to recover{}", its_name(names));
        return Decision::will("none", Remedy::Nothing, message);
    }
    // Who has only the name and never ran there does not keep it from being started.
    let stranger = match world.stranger {
        Stranger::HoldsName => Stranger::None,
        Stranger::None | Stranger::OnDatabase | Stranger::Server => world.stranger,
    };
    let sight = &Sight { world: World { stranger, ..*world }, ..sight.clone() };
    if world.old == Seen::Gone && stranger == Stranger::None && sight.later.is_none() {
        return made_again(&why, good, names);
    }
    let mut decision = should_serve(
        sight,
        &why,
        &Due {
            role: "its container",
            seen: world.old,
            name: &names.old,
            remedy: Remedy::StartGood,
            other: Seen::Gone,
            other_serves: Serving::Next,
            other_name: "",
        },
    );
    if decision.remedy == Remedy::StartGood {
        decision.message.push_str(&its_name(names));
    }
    decision
}

/// How it gets the shop's name again, when it has another.
fn its_name(names: &Names) -> String {
    let Names { shop, old, stranger, docker, .. } = names;
    if old == shop || shop.is_empty() {
        return String::new();
    }
    let free = match stranger == shop {
        true => format!("{docker} rename {shop} {shop}-other && "),
        false => String::new(),
    };
    format!(
        "; it is called {old} now (to give it its name again: {free}{docker} rename {old} {shop})"
    )
}

/// Nothing that is left may run on its database.
fn made_again(why: &str, good: &Good, names: &Names) -> Decision {
    let Names { shop, .. } = names;
    let image = match good.image.as_str() {
        "" => String::new(),
        image => format!(" (image {image})"),
    };
    Decision::refused(
        format!(
            "{why}; its container is gone and nothing serves; an older version is not started on its database"
        ),
        format!(
            "make a container of {}{image} again, named {shop}, on the same database, and when it serves: payram-updater sync",
            good.version
        ),
    )
}
