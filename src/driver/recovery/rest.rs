//! Of an upgrade that has come to rest: what should serve is started again, what was left over
//! is cleared, the way back is taken again where no row is at stake.

use super::{
    Consent, CopySeen, Decision, Names, Remedy, Seen, Serving, Sight, Stranger, keep, later,
    never_asked, stranger_in_the_way,
};
use crate::driver::narrate::kept;
use crate::driver::{export_path, failed_database, failed_path};
use crate::journal::JobRecord;
use crate::machine::facts::{Assessment, Copy, Probation, ProbationEnd};
use crate::machine::failure::FailureCode;
use crate::machine::{Begun, Event, NeedsOperator, Phase, State, Step, Verified};

pub(super) fn decide(job: &JobRecord, sight: &Sight, consent: Consent) -> Decision {
    let target = &job.body.resolved_target;
    let Some(hop) = job.hop() else {
        let why = format!("the upgrade to {target} never began and changed nothing");
        let mut decision = never_asked(sight, &why);
        if sight.world.serving == Serving::Old {
            decision = Decision::will(
                "retry",
                Remedy::Nothing,
                format!("{why}; the shop serves: fix the cause and run it again"),
            );
        }
        return decision;
    };
    let is_closed = job.ending.as_ref().is_some_and(|ending| ending.failure_code.is_none());
    match hop.machine.state() {
        State::Verified(verified) => after_success(verified, sight),
        State::RolledBack(_) => {
            let mut decision = after_rollback(target, sight);
            if let Some(kept) = kept(&hop.machine) {
                decision.message = format!("{}; {kept}", decision.message);
            }
            decision
        }
        State::NeedsOperator(_) if is_closed => {
            let message = "what serves was recorded as good; nothing to recover";
            Decision::will("none", Remedy::Nothing, message)
        }
        State::NeedsOperator(needs) => {
            let mut decision = needs_operator(job, sight, consent, needs);
            if needs.is_damaged() && !decision.success {
                let say = "CRITICAL: two servers worked on the database's directory, so that it may be damaged";
                decision.message = format!("{say}; {}", decision.message);
            }
            if decision.action == "restore_database" {
                say_what_is_forgotten(&mut decision, job, needs);
            }
            decision
        }
        // A job that is not active rests in one of the three above, or is between two hops.
        State::Planned(_)
        | State::BackedUp(_)
        | State::Pulled(_)
        | State::Swapped(_)
        | State::RollingBack(_) => Decision::refused(
            format!(
                "the journal says that the upgrade to {target} ended in {}, which no rule covers",
                hop.machine.phase()
            ),
            "keep the journal and show it to PayRam's support: payram-updater journal export > journal.jsonl",
        ),
    }
}

/// What going back forgets, and where it is kept.
fn say_what_is_forgotten(decision: &mut Decision, job: &JobRecord, needs: &NeedsOperator) {
    decision.found = match &needs.assessment {
        Some(Assessment::RowsChanged { tables } | Assessment::WorkersWrote { tables }) => {
            tables.clone()
        }
        Some(Assessment::Unreadable { reason }) => vec![format!("it can't be told: {reason}")],
        Some(Assessment::SchemaChanged { what }) => vec![format!("no row, but its schema: {what}")],
        Some(Assessment::Damaged { by }) => vec![format!("its directory may be damaged: {by}")],
        Some(Assessment::Unchanged | Assessment::Serves { .. }) | None => Vec::new(),
    };
    if !decision.found.is_empty() {
        let (target, found) = (&job.body.resolved_target, decision.found.join("; "));
        decision.message = format!("{target} changed the database: {found}; {}", decision.message);
    }
    let rows = match needs.interrupted.known().copy {
        Some(Copy::Directory { source, .. }) => {
            let failed = failed_path(source, &job.id, job.hops.len());
            let file = export_path(&failed);
            format!(
                "it is kept in {failed}, and {file} then holds its rows, or says which could not be exported"
            )
        }
        Some(Copy::Dump { is_elsewhere: true, .. }) => format!(
            "it stays on the same server as database {}, with its rows, which are not exported",
            failed_database(&job.id, job.hops.len())
        ),
        Some(Copy::Dump { reason, .. }) => format!("its rows are not exported: {reason}"),
        None => "nothing is exported: the database was never copied".to_owned(),
    };
    decision.message = format!("{}; {rows}", decision.message);
}

/// Which container should serve.
pub(super) struct Due<'a> {
    pub role: &'static str,
    pub seen: Seen,
    pub name: &'a str,
    pub remedy: Remedy,
    /// The other one of the two.
    pub other: Seen,
    pub other_serves: Serving,
    pub other_name: &'a str,
}

fn after_success(verified: &Verified, sight: &Sight) -> Decision {
    let (world, names) = (&sight.world, &sight.names);
    let version = &verified.swapped.backed_up.hop.version;
    if world.serving != Serving::Next
        && let Some(refused) = later::in_the_way(&format!("{version} was verified"), sight)
    {
        return refused;
    }
    if let Some(probation) = verified.probation.as_ref().filter(|p| p.keeps_the_way_back())
        && let Some(decision) = kept_after(version, probation, sight)
    {
        return decision;
    }
    if world.next == Seen::Running && world.serving == Serving::Next {
        if verified.probation.is_none() && verified.is_watched_on() {
            return Decision::will(
                "none",
                Remedy::Nothing,
                format!(
                    "{version} was verified and serves; it is watched a while longer, and until then {}",
                    way_back(sight).0
                ),
            );
        }
        return match verified.is_tidy {
            false => Decision::will(
                "tidy",
                Remedy::Tidy,
                format!(
                    "{version} was verified and serves: the old container and the copy of its database are not needed any more and are removed"
                ),
            ),
            true => Decision::will(
                "none",
                Remedy::Nothing,
                format!("{version} was verified and serves; nothing to recover"),
            ),
        };
    }
    should_serve(
        sight,
        &format!("{version} was verified"),
        &Due {
            role: "its container",
            seen: world.next,
            name: &names.next,
            remedy: Remedy::StartNext,
            other: world.old,
            other_serves: Serving::Old,
            other_name: &names.old,
        },
    )
}

/// After a watch that found something: nothing was tidied away, and a person chooses.
fn kept_after(version: &str, probation: &Probation, sight: &Sight) -> Option<Decision> {
    let (world, names) = (&sight.world, &sight.names);
    let Names { next, docker, copy, .. } = names;
    let findings = probation.findings.join("; ");
    let (kept, clear) = way_back(sight);
    let clear = format!("when you are sure that nothing of it is needed: {clear}");
    match (probation.end, world.serving) {
        (ProbationEnd::Damaged, _) => {
            let decision = Decision::refused(
                format!(
                    "two servers worked on the database's directory after {version} was verified, so that it may be damaged: {findings}; {kept}, and nothing is started"
                ),
                format!(
                    "the database as it is now: {docker} start {next}, dump it and check the dump, then payram-updater sync"
                ),
            );
            Some(match world.copy {
                CopySeen::There | CopySeen::InTheWay => decision.or(format!("the database as it was before {version}, without what was paid since: the steps are in the README under 'By hand'; the copy is {copy}")),
                CopySeen::NotMade | CopySeen::Missing => decision,
            })
        }
        (_, Serving::Next) => {
            let mut decision = Decision::will(
                "none",
                Remedy::Nothing,
                format!("{version} was verified and serves now; after that: {findings}; {kept}"),
            );
            decision.refusals = vec![clear];
            Some(decision)
        }
        (_, _) => None,
    }
}

/// What is there for the way back, and the commands that clear it away.
fn way_back(sight: &Sight) -> (String, String) {
    let Names { old, docker, copy, .. } = &sight.names;
    let container = format!("the old container {old}");
    let database = format!("the copy of its database {copy}");
    let has_container = sight.world.old != Seen::Gone;
    let (sentence, clear) = match (has_container, sight.world.copy) {
        (true, CopySeen::There | CopySeen::InTheWay) => (
            format!("{container} and {database} are kept"),
            format!("{docker} rm {old} && rm -r {copy} && "),
        ),
        (true, CopySeen::Missing) => {
            (format!("{container} is kept; {database} is gone"), format!("{docker} rm {old} && "))
        }
        (true, CopySeen::NotMade) => {
            (format!("{container} is kept"), format!("{docker} rm {old} && "))
        }
        (false, CopySeen::There | CopySeen::InTheWay) => {
            (format!("{database} is kept; the old container is gone"), format!("rm -r {copy} && "))
        }
        (false, CopySeen::Missing) => {
            (format!("nothing is kept: the old container and {database} are gone"), String::new())
        }
        (false, CopySeen::NotMade) => {
            ("nothing is kept: the old container is gone".to_owned(), String::new())
        }
    };
    (sentence, format!("{clear}payram-updater sync"))
}

fn after_rollback(target: &str, sight: &Sight) -> Decision {
    let (world, names) = (&sight.world, &sight.names);
    if world.old == Seen::Running && world.serving == Serving::Old {
        return Decision::will(
            "retry",
            Remedy::Nothing,
            format!(
                "the upgrade to {target} was rolled back and the old version serves; nothing to recover: fix the cause and run it again"
            ),
        );
    }
    should_serve(
        sight,
        &format!("the upgrade to {target} was rolled back"),
        &Due {
            role: "the old version's container",
            seen: world.old,
            name: &names.old,
            remedy: Remedy::StartOld,
            other: world.next,
            other_serves: Serving::Next,
            other_name: &names.next,
        },
    )
}

/// What should serve does not: it is started where nothing else runs in its place.
pub(super) fn should_serve(sight: &Sight, why: &str, due: &Due<'_>) -> Decision {
    let (world, names) = (&sight.world, &sight.names);
    let Names { shop, docker, stranger, .. } = names;
    let Due { role, name, .. } = due;
    if world.serving == Serving::Stranger && stranger == shop {
        return Decision::will(
            "none",
            Remedy::Nothing,
            format!(
                "{why}; since then somebody put another container in its place, which serves and is not touched (if it is right: payram-updater sync)"
            ),
        );
    }
    if let Some(refused) = stranger_in_the_way(sight) {
        return refused;
    }
    if due.other == Seen::Running {
        let other = due.other_name;
        let answers = if world.serving == due.other_serves { " and answers" } else { "" };
        let refused = Decision::refused(
            format!(
                "{why}; since then somebody started the other container {other}, which runs{answers} on the same database: it is not stopped"
            ),
            keep(sight, other),
        );
        return match sight.later {
            // What is older would not be started in its place.
            Some(_) => refused,
            None => refused.or(format!(
                "to go on without it: {docker} stop {other} && payram-updater recover"
            )),
        };
    }
    if let Some(refused) = later::in_the_way(why, sight) {
        return refused;
    }
    match due.seen {
        Seen::Running => Decision::refused(
            format!("{why}; {role} {name} runs and does not answer: a start would not help, and it is not stopped"),
            format!("find out why: {docker} logs --tail 50 {name}"),
        )
        .or(format!("start it anew: {docker} restart {name}")),
        Seen::Created | Seen::Stopped => Decision::will(
            "start",
            due.remedy,
            format!("{why}; {role} {name} does not run and nothing else serves: it is started"),
        ),
        Seen::Gone => {
            let refused = Decision::refused(
                format!("{why}; {role} is gone and nothing serves"),
                format!("make it again as it was made at first, named {shop}, then: payram-updater sync"),
            );
            match (due.other, due.other_serves) {
                // The old version is never started on what the new one wrote.
                (Seen::Gone, _) | (_, Serving::Old) => refused,
                (Seen::Created | Seen::Stopped | Seen::Running, _) => {
                    let other = due.other_name;
                    refused.or(format!(
                        "or try the other version's container on the database as it is: {docker} start {other}"
                    ))
                }
            }
        }
    }
}

fn needs_operator(
    job: &JobRecord,
    sight: &Sight,
    consent: Consent,
    needs: &NeedsOperator,
) -> Decision {
    let target = &job.body.resolved_target;
    let (world, names) = (&sight.world, &sight.names);
    let Names { shop, old, next, docker, .. } = names;
    let again =
        |name: &str| format!("to go back instead: {docker} stop {name} && payram-updater recover");
    if matches!(world.stranger, Stranger::OnDatabase | Stranger::Server)
        && let Some(refused) = stranger_in_the_way(sight)
    {
        return refused;
    }
    // Once the old version may have run again its database is its own: going on stops nothing
    // and replaces nothing. What two servers worked on is nobody's.
    let has_point = needs.interrupted.known().restore_point.is_some();
    let is_returning = needs.begun == Begun::Return && !(needs.is_damaged() && has_point);
    let may_restore = !is_returning && needs.restored.is_none() && world.copy == CopySeen::There;
    // The copy is of before the upgrade; whatever was written since is moved aside and kept.
    if !(consent.restore_database && may_restore)
        && let Some(mut refused) =
            later::in_the_way(&format!("the upgrade to {target} stopped"), sight)
    {
        if may_restore {
            let free = match world.stranger == Stranger::HoldsName {
                true => format!("{docker} rename {shop} {shop}-other && "),
                false => String::new(),
            };
            refused = refused.or(format!(
                "or the database as it was before {target}, what was written since is kept aside: {free}payram-updater recover --restore-database"
            ));
        }
        return refused;
    }
    if consent.keep_new {
        return keep_new(job, sight, needs);
    }
    if world.serving == Serving::Next {
        return Decision::refused(
            format!("the container {next} of {target} runs and answers: it is not stopped"),
            keep(sight, next),
        )
        .or(again(next));
    }
    if world.old == Seen::Running && !is_returning {
        let answers = match world.serving == Serving::Old {
            true => "runs and answers",
            false => "runs",
        };
        return Decision::refused(
            format!("the old container {old} {answers}, started by somebody: it is not stopped, and its database is not replaced under it"),
            keep(sight, old),
        )
        .or(again(old));
    }
    if world.stranger == Stranger::HoldsName && consent.restore_database && may_restore {
        let again = "payram-updater recover --restore-database";
        return Decision::refused(
            format!(
                "a container that is no part of this upgrade has the name {shop}, so that the old version could not take it"
            ),
            format!("{docker} rename {shop} {shop}-other && {again}"),
        );
    }
    if let Some(refused) = stranger_in_the_way(sight) {
        return refused;
    }
    let is_restoring = !is_returning && needs.restored.is_none();
    if world.next == Seen::Running && !stops_next(job) {
        return Decision::refused(
            format!(
                "the new container {next} runs and does not answer; this upgrade never started it, so its way back does not stop it, and the old version can't be started beside it"
            ),
            again(next),
        );
    }
    if needs.is_damaged() && !(is_restoring && has_point && consent.restore_database) {
        return damaged(target, sight, needs, is_restoring && has_point);
    }
    let is_changed =
        !matches!(needs.assessment, None | Some(Assessment::Unchanged | Assessment::Serves { .. }));
    let is_due = consent.restore_database || is_changed || needs.begun == Begun::Restore;
    if is_restoring
        && is_due
        && let Some(refused) = copy_in_doubt(sight, consent, needs)
    {
        return refused;
    }
    if consent.carry_rows && !is_restoring {
        let whose = match &needs.restored {
            Some(restored) => format!(
                "the database as it was before {target} is back already, and what {target} wrote lies in {}",
                restored.failed
            ),
            None => "the old version may have run on the database since".to_owned(),
        };
        return Decision::refused(
            format!("no rows can be carried over any more: {whose}"),
            "payram-updater recover without --carry-rows; rows that are not in the shop then are in the file that it names",
        );
    }
    let is_dump = matches!(needs.interrupted.known().copy, Some(Copy::Dump { .. }));
    if consent.carry_rows && is_dump {
        return Decision::refused(
            "no rows can be carried over: the database's directory was not copied, a dump of it was taken",
            "payram-updater recover --restore-database: the database as it was before; what the failed version wrote stays beside it, where it can be read",
        );
    }
    if consent.restore_database && is_restoring {
        let (event, carried) = match consent.carry_rows {
            true => (
                Event::RecoverCarrying,
                "; of that, what transactions inserted that changed and removed nothing else is carried over, all of it or nothing",
            ),
            false => (Event::RecoverRestoring, ""),
        };
        return Decision::will(
            "restore_database",
            Remedy::TakeWayBack(event),
            format!(
                "the database comes back as it was before {target}, if {target} changed it; what {target} wrote is moved aside and kept{carried}; then the old version is started as {shop} and verified"
            ),
        );
    }
    let is_rows = matches!(
        needs.assessment,
        Some(Assessment::RowsChanged { .. } | Assessment::WorkersWrote { .. })
    );
    let at_stake = match needs.assessment.as_ref().filter(|_| is_restoring) {
        Some(Assessment::RowsChanged { tables } | Assessment::WorkersWrote { tables }) => {
            Some(tables.join("; "))
        }
        Some(Assessment::Unreadable { reason }) => Some(format!("it can't be told how: {reason}")),
        Some(Assessment::SchemaChanged { what }) => Some(what.clone()),
        Some(Assessment::Damaged { by }) => Some(format!("its directory may be damaged: {by}")),
        Some(Assessment::Unchanged | Assessment::Serves { .. }) | None => None,
    };
    match at_stake {
        Some(what)
            if matches!(
                needs.reason.code,
                FailureCode::MigrationFailed | FailureCode::DatabaseDamaged
            ) =>
        {
            let meanwhile = match world.next {
                Seen::Running => format!("{next} runs, does not answer, and stays as it is"),
                Seen::Gone | Seen::Created | Seen::Stopped => "both containers stay stopped".into(),
            };
            Decision::refused(
                format!(
                    "{target} changed the database ({what}), and going back would drop these changes: {meanwhile} until you decide"
                ),
                "payram-updater recover --restore-database: the database as it was before; what the failed version wrote is kept aside",
            )
            .or_some((is_rows && !is_dump).then(|| {
                "or the same with --carry-rows: what the failed version only inserted is carried over into it".to_owned()
            }))
            .or_some((needs.may_keep_new() && world.next != Seen::Gone).then(|| {
                format!(
                    "or payram-updater recover --keep-new: {target} once more, on the database as it is; it has to pass its checks"
                )
            }))
        }
        Some(_) | None => {
            let serves = match (world.serving == Serving::Old, world.old) {
                (true, _) => "the old version serves already and is not stopped".to_owned(),
                (false, Seen::Gone) => made_again(needs),
                (false, Seen::Created | Seen::Stopped | Seen::Running) => {
                    "the old version is started and verified".to_owned()
                }
            };
            Decision::will(
                "rollback",
                Remedy::TakeWayBack(Event::Recover),
                format!(
                    "rolling back from {target} again, because it stopped half way: {}; {serves}",
                    needs.reason
                ),
            )
        }
    }
}

/// The person's other way: on with the new version, on the database that it left.
fn keep_new(job: &JobRecord, sight: &Sight, needs: &NeedsOperator) -> Decision {
    let target = &job.body.resolved_target;
    let (world, names) = (&sight.world, &sight.names);
    let Names { shop, old, docker, .. } = names;
    let not_kept = |why: String| format!("{target} can't be kept: {why}");
    let back = "payram-updater recover says what can be done instead";
    if !needs.may_keep_new() {
        let why = match (&needs.restored, needs.interrupted.phase()) {
            (Some(restored), _) => format!(
                "the database is the one from before it again, and its own lies in {}",
                restored.failed
            ),
            (None, _) if needs.is_damaged() => {
                "two servers worked on the database's directory, which may be damaged".to_owned()
            }
            (None, Phase::Swapped) => {
                "the way back has begun, and the old version may have run since".to_owned()
            }
            (None, _) => "it was never started".to_owned(),
        };
        return Decision::refused(not_kept(why), back);
    }
    match world.stranger {
        Stranger::None => {}
        Stranger::HoldsName => {
            return Decision::refused(
                not_kept(format!("another container has the name {shop}")),
                format!("{docker} rename {shop} {shop}-other && payram-updater recover --keep-new"),
            );
        }
        Stranger::OnDatabase | Stranger::Server => {
            let refused = stranger_in_the_way(sight);
            let why = not_kept("another server works on the database".to_owned());
            return refused.unwrap_or_else(|| Decision::refused(why, back));
        }
    }
    if world.old == Seen::Running {
        return Decision::refused(
            not_kept(format!("the old container {old} runs, and two would share one database")),
            format!("{docker} stop {old} && payram-updater recover --keep-new"),
        );
    }
    if world.next == Seen::Gone {
        return Decision::refused(not_kept("its container is gone".to_owned()), back);
    }
    let how = match world.serving {
        Serving::Next => format!("answers and is left running as {shop}"),
        Serving::Nobody | Serving::Old | Serving::Stranger => {
            format!("is started again as {shop}")
        }
    };
    Decision::will(
        "keep_new",
        Remedy::TakeWayBack(Event::RecoverKeeping),
        format!(
            "{target} {how}, on the database as it is, and has to pass its checks: then the upgrade counts as verified; otherwise it is left as it is, nothing is removed, and you are asked again"
        ),
    )
}

/// Two servers worked on the directory: nothing is started there until a person has chosen.
fn damaged(target: &str, sight: &Sight, needs: &NeedsOperator, has_point: bool) -> Decision {
    let Names { old, failed, docker, .. } = &sight.names;
    let refused = Decision::refused(
        format!("{}: nothing is started until you decide", needs.reason),
        match (has_point, needs.interrupted.known().backup) {
            (true, _) => format!(
                "payram-updater recover --restore-database: the database as it was before {target}; what is there now is kept as {failed}"
            ),
            (false, Some(backup)) => format!(
                "there is no copy from the cut-over; the database as it was when the upgrade began is in {}: the steps are in the README under 'By hand'",
                backup.path
            ),
            (false, None) => "there is no copy and no backup of this upgrade".to_owned(),
        },
    );
    refused.or(match sight.world.old {
        Seen::Running => keep(sight, old),
        Seen::Gone | Seen::Created | Seen::Stopped => format!(
            "or the database as it is now: {docker} start {old}, dump it and check the dump, then payram-updater sync"
        ),
    })
}

/// Whether the way back, taken again, stops the new container.
fn stops_next(job: &JobRecord) -> bool {
    let again = job.hop().and_then(|hop| hop.machine.clone().recover(Event::Recover).ok());
    match again.as_ref().map(|(machine, _)| machine.state()) {
        Some(State::RollingBack(back)) => back.remaining.contains(&Step::StopNext),
        Some(_) | None => false,
    }
}

/// The database may have to be put back, and can't be. None when it can.
fn copy_in_doubt(sight: &Sight, consent: Consent, needs: &NeedsOperator) -> Option<Decision> {
    let Names { shop, old, copy, failed, docker, .. } = &sight.names;
    let again = match consent.restore_database {
        true => "payram-updater recover --restore-database",
        false => "payram-updater recover",
    };
    match sight.world.copy {
        CopySeen::There | CopySeen::NotMade => None,
        CopySeen::Missing => {
            let known = needs.interrupted.known();
            let backup = known.backup.map_or("the newest backup", |backup| backup.path.as_str());
            let refused = Decision::refused(
                format!(
                    "the copy of the database {copy} is missing, so that it can't be put back as it was"
                ),
                format!("if it was moved away, bring it back to {copy}, then: {again}"),
            );
            if matches!(known.copy, Some(Copy::Dump { .. })) {
                return Some(refused.or(format!(
                    "otherwise the database as it was when the upgrade began is in {backup}: the steps are in the README under 'By hand'"
                )));
            }
            let source = match known.copy {
                Some(Copy::Directory { source, .. }) => source.as_str(),
                Some(Copy::Dump { .. }) | None => "the database's directory",
            };
            let free = match sight.names.next == *shop {
                true => format!("{docker} rename {shop} {shop}-failed && "),
                false => String::new(),
            };
            let rename = match old == shop {
                true => String::new(),
                false => format!("{docker} rename {old} {shop} && "),
            };
            Some(
                refused
                .or(format!(
                    "otherwise an empty database, then the backup (payments since it was made are only in {failed}): mv {source} {failed} && {free}{rename}{docker} start {shop}; pg_restore {backup} into it; payram-updater sync"
                )),
            )
        }
        CopySeen::InTheWay => Some(Decision::refused(
            format!(
                "the failed version's database is to be kept as {failed}, and there is something of that name already: it is not overwritten"
            ),
            format!("mv {failed} {failed}.earlier && {again}"),
        )),
    }
}

/// What the way back does where somebody removed the old container, and what it needs for that.
fn made_again(needs: &NeedsOperator) -> String {
    let hop = &needs.interrupted.known().hop;
    format!(
        "the old container is gone: it is made again from {} (image {}, which must be on this host), on the database that is there, then started and verified",
        hop.old.spec_file, hop.old.image_id
    )
}
