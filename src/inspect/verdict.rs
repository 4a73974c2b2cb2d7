//! From what was seen to the verdict: the rules of contract section 6. Pure.

use std::collections::BTreeMap;

use super::chain::ChainSeen;
use super::playbook_of_job;
use super::report::{
    Action, CheckResult, CheckStatus, Issue, OverallState, Recommendation, Report, Severity,
};
use super::seen::Seen;
use crate::app::core::Health;
use crate::config::Settings;
use crate::database::Sharer;
use crate::driver::{JobView, ProbationView, Progress, Worker, waits_for};
use crate::history::SetAside;
use crate::journal::JobRecord;
use crate::machine::Phase;
use crate::machine::facts::Assessment;
use crate::machine::failure::FailureCode;
use crate::notify;
use crate::plan::quarantine;
use crate::plan::updates::{UpdateInfo, update_info};
use crate::plan::versions::Scheme;

/// Collects the report.
#[derive(Default)]
struct Verdict {
    issues: Vec<Issue>,
    recommendations: Vec<(Action, String)>,
    checks: BTreeMap<String, CheckResult>,
}

impl Verdict {
    fn check(&mut self, name: &str, status: CheckStatus, message: impl Into<String>) {
        self.checks.insert(name.to_owned(), CheckResult { status, message: message.into() });
    }

    /// A check that found something.
    fn found(&mut self, name: &str, severity: Severity, description: impl Into<String>) {
        let description = description.into();
        let status = match severity {
            Severity::Info => CheckStatus::Ok,
            Severity::Warning => CheckStatus::Warning,
            Severity::Critical => CheckStatus::Failed,
        };
        self.check(name, status, description.clone());
        self.issues.push(Issue { component: name.to_owned(), description, severity });
    }

    /// In the order in which they are to be done; the first of a kind stands.
    fn recommend(&mut self, action: Action, description: impl Into<String>) {
        if !self.recommendations.iter().any(|(known, _)| *known == action) {
            self.recommendations.push((action, description.into()));
        }
    }
}

/// Judges.
pub(super) fn judge(settings: &Settings, seen: &Seen, worker: Worker<'_>) -> Report {
    let mut verdict = Verdict::default();
    let job = seen.job.as_ref().ok().and_then(Option::as_ref);
    judge_journal(&mut verdict, seen, worker);
    judge_engine(&mut verdict, seen);
    judge_last_job(&mut verdict, seen, worker);
    judge_daemon(&mut verdict, seen, worker);
    judge_container(&mut verdict, seen);
    judge_sources(&mut verdict, seen);
    judge_health(&mut verdict, seen);
    judge_version(&mut verdict, settings, seen);
    judge_probation(&mut verdict, job);
    judge_database(&mut verdict, settings, seen);
    if let Some(other) = &seen.collation {
        verdict.found("collation", Severity::Warning, other.sentence());
    }
    judge_owners(&mut verdict, seen);
    judge_rest(&mut verdict, seen);
    judge_restore(&mut verdict, seen);
    judge_rows(&mut verdict, seen);
    recommend_after_failure(&mut verdict, job);
    judge_quarantine(&mut verdict, seen);
    judge_auto_update(&mut verdict, seen);
    judge_notifications(&mut verdict, seen);
    let update_info = judge_updates(&mut verdict, settings, seen);
    verdict.issues.sort_by_key(|issue| std::cmp::Reverse(issue.severity));
    let worst = verdict.issues.first().map(|issue| issue.severity);
    if verdict.recommendations.is_empty() {
        verdict.recommend(Action::None, "nothing to do");
    }
    Report {
        overall_state: match worst {
            Some(Severity::Critical) => OverallState::Broken,
            Some(Severity::Warning) => OverallState::Degraded,
            Some(Severity::Info) | None => OverallState::Ok,
        },
        issues: verdict.issues,
        recommendations: verdict
            .recommendations
            .into_iter()
            .zip(1..)
            .map(|((action, description), priority)| Recommendation {
                action,
                description,
                priority,
            })
            .collect(),
        last_job: job.map(|job| JobView::with(job, Progress::default(), worker)),
        recovery_playbook: job.and_then(|job| {
            let code = job.ending.as_ref()?.failure_code?;
            Some(playbook_of_job(settings, job, code))
        }),
        update_info,
        checks: verdict.checks,
    }
}

fn judge_auto_update(verdict: &mut Verdict, seen: &Seen) {
    match &seen.auto_update {
        Ok(view) if view.error.is_some() => {
            verdict.found(
                "autoUpdate",
                Severity::Warning,
                format!("auto-update is {}", view.sentence()),
            );
            verdict.recommend(
                Action::Reinstall,
                "payram-updater init stores it again, once the file is corrected or removed",
            );
        }
        Ok(view) => verdict.check("autoUpdate", CheckStatus::Ok, view.sentence()),
        Err(reason) => verdict.check("autoUpdate", CheckStatus::Unknown, reason.clone()),
    }
}

/// A letter that nobody took says nothing about the shop.
fn judge_notifications(verdict: &mut Verdict, seen: &Seen) {
    let (status, message) = match &seen.notified {
        None => return,
        Some(Ok(event)) if event.status == notify::FAILED => {
            (CheckStatus::Warning, event.message.clone())
        }
        Some(Ok(event)) => (CheckStatus::Ok, format!("{} at {}", event.message, event.timestamp)),
        Some(Err(reason)) => (CheckStatus::Unknown, reason.clone()),
    };
    if status == CheckStatus::Warning {
        verdict.issues.push(Issue {
            component: "notifications".to_owned(),
            description: message.clone(),
            severity: Severity::Info,
        });
    }
    verdict.check("notifications", status, message);
}

fn judge_journal(verdict: &mut Verdict, seen: &Seen, worker: Worker<'_>) {
    if let Worker::Blocked(blocked) = worker {
        let found = format!("nothing is done until the journal can be used again: {blocked}");
        verdict.found("journal", Severity::Critical, found);
        verdict.recommend(
            Action::Wait,
            "make room on the disk of the state directory; the upgrade then goes on by itself",
        );
        return;
    }
    match &seen.chain {
        None => verdict.check("journal", CheckStatus::Unknown, "there is no journal yet"),
        Some(ChainSeen::Holds(found)) => verdict.check("journal", CheckStatus::Ok, found.clone()),
        Some(ChainSeen::Unfinished(found)) => {
            verdict.check("journal", CheckStatus::Unknown, found.clone());
        }
        Some(ChainSeen::Fault(reason)) => {
            verdict.found("journal", Severity::Warning, reason.clone());
            verdict.recommend(
                Action::ContactSupport,
                "something else changed the journal: payram-updater journal verify names the row; keep a copy (payram-updater journal export > journal.jsonl) and ask PayRam's support with it",
            );
        }
    }
}

fn judge_engine(verdict: &mut Verdict, seen: &Seen) {
    match &seen.engine {
        Ok(version) => verdict.check("dockerDaemon", CheckStatus::Ok, format!("version {version}")),
        Err(reason) => {
            verdict.found("dockerDaemon", Severity::Critical, reason.clone());
            verdict.recommend(
                Action::Retry,
                "start the container engine (systemctl start docker), then inspect again",
            );
        }
    }
}

fn judge_last_job(verdict: &mut Verdict, seen: &Seen, worker: Worker<'_>) {
    let job = match &seen.job {
        Ok(Some(job)) => job,
        Ok(None) => {
            verdict.check("lastJob", CheckStatus::Ok, "no upgrade was run yet");
            return;
        }
        Err(reason) => {
            verdict.found("lastJob", Severity::Warning, format!("can't be read: {reason}"));
            return;
        }
    };
    if job.is_active() {
        judge_unfinished(verdict, seen, job, worker);
        return;
    }
    let ending = job.ending.as_ref();
    let message = ending.map(|ending| ending.message.clone()).unwrap_or_default();
    let code = ending.and_then(|ending| ending.failure_code);
    match (code, job.phase()) {
        (None, _) => verdict.check("lastJob", CheckStatus::Ok, message),
        (Some(code), Phase::RolledBack | Phase::Planned) => {
            // The old version was verified again, or nothing was ever touched.
            verdict.found("lastJob", Severity::Info, format!("{code}: {message}"));
        }
        (Some(code), _) => {
            verdict.found("lastJob", Severity::Critical, format!("{code}: {message}"));
            if is_left_serving(job) && matches!(seen.health, Some(Health::Healthy)) {
                verdict.recommend(
                    Action::Sync,
                    "payram-updater sync records the version that serves as good",
                );
                return;
            }
            verdict.recommend(
                Action::Recover,
                "payram-updater recover: what was found, and each way out with what it costs",
            );
            if code == FailureCode::MigrationFailed {
                let target = &job.body.resolved_target;
                let how = format!(
                    "payram-updater recover --restore-database: the database as it was before {target}; what {target} wrote is kept aside, and what can be loaded again is in a file (with --carry-rows, what it only inserted comes along)"
                );
                verdict.recommend(Action::RestoreDb, how);
            }
        }
    }
}

/// After everything that a person has to do: the shop is as it was before the last upgrade.
fn recommend_after_failure(verdict: &mut Verdict, job: Option<&JobRecord>) {
    let Some(job) = job.filter(|job| !job.is_active()) else { return };
    let has_failed = job.ending.as_ref().is_some_and(|ending| ending.failure_code.is_some());
    if has_failed && matches!(job.phase(), Phase::RolledBack | Phase::Planned) {
        let target = &job.body.resolved_target;
        let how = format!(
            "nothing has to be done for the shop: payram-updater logs says why {target} failed; once that is put right: payram-updater run --to {target}"
        );
        verdict.recommend(Action::Retry, how);
    }
}

/// Whether a daemon answers. An upgrade that needs one says so itself.
fn judge_daemon(verdict: &mut Verdict, seen: &Seen, worker: Worker<'_>) {
    if !matches!(worker, Worker::Away) {
        return verdict.check("daemon", CheckStatus::Ok, "runs");
    }
    let found = "the updater's daemon does not run: nothing can be upgraded from the dashboard";
    verdict.found("daemon", Severity::Info, found);
    let is_unfinished = matches!(&seen.job, Ok(Some(job)) if job.is_active());
    if !is_unfinished {
        verdict.recommend(Action::Retry, "start the daemon: systemctl start payram-updater");
    }
}

/// An upgrade that goes on by itself is waited for; where nothing goes on a person must act, and at
/// once when nothing serves.
fn judge_unfinished(verdict: &mut Verdict, seen: &Seen, job: &JobRecord, worker: Worker<'_>) {
    let (target, phase) = (&job.body.resolved_target, job.phase());
    let Some(waits) = waits_for(job, worker).filter(|_| !matches!(worker, Worker::Blocked(_)))
    else {
        let found = format!("an upgrade to {target} is under way or unfinished: {phase}");
        verdict.found("lastJob", Severity::Warning, found);
        verdict.recommend(Action::Wait, "wait for it (payram-updater watch)");
        return;
    };
    let serves = matches!(seen.health, Some(Health::Healthy | Health::Unhealthy { .. }));
    let (severity, nothing) = match serves {
        true => (Severity::Warning, ""),
        false => (Severity::Critical, ", and nothing serves"),
    };
    let found = format!("the upgrade to {target} is unfinished in {phase}{nothing}. {}", waits.why);
    verdict.found("lastJob", severity, found);
    let how = match worker {
        Worker::Holds if waits.how.len() > 1 => {
            "payram-updater recover goes on with it; payram-updater cancel goes back instead"
        }
        Worker::Holds => "payram-updater recover goes on with it",
        Worker::AtWork | Worker::Blocked(_) | Worker::Away => {
            "start the daemon, which goes on with it (systemctl start payram-updater); without a daemon payram-updater recover does"
        }
    };
    verdict.recommend(Action::Recover, how);
}

/// Whether the upgrade stopped with its new version serving.
fn is_left_serving(job: &JobRecord) -> bool {
    let known = job.hop().map(|hop| hop.machine.state().known());
    known.is_some_and(|known| matches!(known.assessment, Some(Assessment::Serves { .. })))
}

fn judge_container(verdict: &mut Verdict, seen: &Seen) {
    if seen.engine.is_err() {
        verdict.check("container", CheckStatus::Unknown, "the container engine can't be asked");
        return;
    }
    match &seen.container {
        Ok(container) if container.is_running => {
            verdict.check("container", CheckStatus::Ok, format!("{} runs", container.name));
        }
        Ok(container) => {
            let how = match container.status.as_str() {
                "exited" => "has exited".to_owned(),
                status => format!("is {status}"),
            };
            verdict.found("container", Severity::Warning, format!("{} {how}", container.name));
            verdict.recommend(
                Action::Recover,
                "payram-updater recover starts what should serve, or says why it does not",
            );
        }
        Err(failure) if failure.code == FailureCode::ContainerNotFound => {
            verdict.found("container", Severity::Warning, failure.message.clone());
            // Nothing was ever upgraded here under that name: it is the name that is wrong.
            match &seen.job {
                Ok(None) => verdict.recommend(
                    Action::Reinstall,
                    "name PayRam's container in TARGET_CONTAINER_NAME (/etc/payram/updater.env), then: sudo systemctl restart payram-updater; or start PayRam where there is none",
                ),
                Ok(Some(_)) | Err(_) => {
                    verdict.recommend(
                        Action::Recover,
                        "payram-updater recover starts what should serve, or says why it does not",
                    );
                }
            }
        }
        Err(failure) => {
            verdict.found("container_name", Severity::Critical, failure.message.clone());
            verdict.recommend(
                Action::Reinstall,
                "start PayRam, or name its container in TARGET_CONTAINER_NAME",
            );
        }
    }
}

fn judge_sources(verdict: &mut Verdict, seen: &Seen) {
    let policy = seen.policy.as_ref().map(|_| ());
    let manifest = seen.manifest.as_ref().map(|_| ());
    for (name, result) in [("policy", policy), ("manifest", manifest)] {
        match result {
            Ok(()) => verdict.check(name, CheckStatus::Ok, "read"),
            Err(failure) => {
                verdict.found(name, Severity::Warning, failure.message.clone());
                let key = if name == "policy" { "POLICY_URL" } else { "RUNTIME_MANIFEST_URL" };
                let how = format!(
                    "see that this host reaches it, or correct {key} (payram-updater config {key} says what it is), then inspect again"
                );
                verdict.recommend(Action::Retry, how);
            }
        }
    }
}

fn judge_health(verdict: &mut Verdict, seen: &Seen) {
    match &seen.health {
        None => verdict.check("health", CheckStatus::Unknown, unasked(seen)),
        Some(Health::Healthy) => verdict.check("health", CheckStatus::Ok, "healthy"),
        Some(Health::Unhealthy { found }) => {
            verdict.found("health", Severity::Warning, found.clone());
        }
        Some(Health::Silent { reason }) => {
            verdict.found("health", Severity::Warning, reason.clone());
        }
    }
}

/// Why no version was asked.
fn unasked(seen: &Seen) -> &'static str {
    match seen.engine.is_err() {
        true => "not asked, as the container engine can't be",
        false => "no container runs that could be asked",
    }
}

/// The running version against the one that was good last.
fn judge_version(verdict: &mut Verdict, settings: &Settings, seen: &Seen) {
    let running = match &seen.version {
        None => return verdict.check("version", CheckStatus::Unknown, unasked(seen)),
        Some(Err(reason)) => return verdict.found("version", Severity::Warning, reason.clone()),
        Some(Ok(running)) => running,
    };
    let last = match &seen.good {
        Ok(last) => last.as_ref(),
        Err(reason) => {
            let found = format!("{running} runs; what was good last can't be read: {reason}");
            return verdict.found("version", Severity::Warning, found);
        }
    };
    let how = last.map(|last| last.by.sentence()).unwrap_or_default();
    let good = last.and_then(|last| last.version.clone());
    let releases =
        seen.policy.as_ref().map(|policy| policy.releases.as_slice()).unwrap_or_default();
    let scheme = Scheme::select(settings.debug_version_mode, releases);
    let order =
        good.as_deref().and_then(|good| Some(scheme.rank(running)?.cmp(&scheme.rank(good)?)));
    match (good, order) {
        (Some(good), Some(std::cmp::Ordering::Less)) => {
            let found = format!("{running} runs, {good} {how}: it was downgraded");
            verdict.found("version", Severity::Critical, found);
            let how = format!(
                "back to {good}: payram-updater run --to {good}; {running} can damage what {good} wrote. If {running} is meant to serve: payram-updater sync"
            );
            verdict.recommend(Action::ContactSupport, how);
        }
        (Some(good), Some(std::cmp::Ordering::Greater)) => {
            let found = format!("{running} runs, {good} {how}");
            if matches!(seen.health, Some(Health::Healthy)) {
                verdict.found("version", Severity::Info, found);
                let how = format!("payram-updater sync records {running} as good");
                verdict.recommend(Action::Sync, how);
            } else {
                verdict.found("version", Severity::Warning, found);
            }
        }
        (_, _) => verdict.check("version", CheckStatus::Ok, running.clone()),
    }
}

/// What the watch after the last verdict came to, as long as something is kept for it.
fn judge_probation(verdict: &mut Verdict, job: Option<&JobRecord>) {
    let Some(view) = job.and_then(ProbationView::of) else { return };
    let found = view.findings.join("; ");
    match view.state {
        "watching" => verdict.check("probation", CheckStatus::Ok, view.sentence()),
        "passed" | "nextUpgrade" => {
            verdict.check("probation", CheckStatus::Ok, "the last upgrade's watch found nothing");
        }
        "damaged" => {
            verdict.found("probation", Severity::Critical, found);
            verdict.recommend(
                Action::Recover,
                "payram-updater recover says what is kept and what can be done",
            );
        }
        _ => {
            verdict.found("probation", Severity::Warning, view.sentence());
            verdict.recommend(
                Action::Recover,
                "payram-updater recover says what is kept and what can be done",
            );
        }
    }
}

/// The database's directory, and who else may work in it.
fn judge_database(verdict: &mut Verdict, settings: &Settings, seen: &Seen) {
    match &seen.elsewhere {
        None => {}
        Some(Ok(at)) => verdict.check("database", CheckStatus::Ok, at.clone()),
        Some(Err(reason)) => verdict.found("database", Severity::Warning, reason.clone()),
    }
    let directory = match &seen.directory {
        None => return,
        Some(Err(reason)) => {
            return verdict.check("database", CheckStatus::Unknown, reason.clone());
        }
        Some(Ok(directory)) => directory,
    };
    let docker = &settings.docker_bin;
    if let Some(second) = &directory.second {
        let found = format!(
            "a second PostgreSQL server works in {}, of {second}: it damages the database",
            directory.path
        );
        verdict.found("database", Severity::Critical, found);
        verdict.recommend(
            Action::ContactSupport,
            format!("end it at once, without an orderly shutdown: {docker} kill CONTAINER"),
        );
    } else if let Some(mismatch) = &directory.mismatch {
        verdict.found("database", Severity::Warning, mismatch.clone());
    } else {
        verdict.check("database", CheckStatus::Ok, format!("works in {}", directory.path));
    }
    let may_run: Vec<&Sharer> = directory.sharers.iter().filter(|each| each.may_run()).collect();
    for other in &may_run {
        let found = format!(
            "container {} ({}, restart policy {}) mounts the database's directory and {}",
            other.name,
            other.state,
            other.policy,
            if other.is_running() { "may run a server there" } else { "may be started by itself" }
        );
        // One that somebody stopped stays down under this policy, as long as nobody starts it.
        let stays_down = other.policy == "unless-stopped" && !other.is_running();
        let severity = if stays_down { Severity::Info } else { Severity::Warning };
        verdict.found("neighbours", severity, found);
    }
    if may_run.is_empty() {
        let named = |is_running: bool| {
            let sharers = directory.sharers.iter().filter(|each| each.is_running() == is_running);
            sharers.map(|each| each.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let said = [
            ("they mount it, too, run, and are no server", named(true)),
            ("they mount it, too, and don't start a server there by themselves", named(false)),
        ];
        let said = said.iter().filter(|(_, names)| !names.is_empty());
        let said: Vec<String> = said.map(|(what, names)| format!("{what}: {names}")).collect();
        let message = match said.is_empty() {
            true => "no other container mounts the database's directory".to_owned(),
            false => said.join("; "),
        };
        verdict.check("neighbours", CheckStatus::Ok, message);
    }
}

/// The newest restore: under way, or one that could not put everything back.
fn judge_restore(verdict: &mut Verdict, seen: &Seen) {
    let restore = match &seen.restore {
        Ok(Some(restore)) => restore,
        Ok(None) => return verdict.check("restore", CheckStatus::Ok, "no backup was put back"),
        Err(reason) => {
            return verdict.found("restore", Severity::Warning, format!("can't be read: {reason}"));
        }
    };
    match (&restore.ending, restore.restore.step()) {
        (None, step) => {
            let doing = step.map_or("it ends", |step| step.activity());
            let found = format!("a backup is being put back ({}): {doing}", restore.id);
            if let Some(failure) = restore.restore.hindered_by() {
                let found = format!("{found}, which can't be done now: {failure}");
                verdict.found("restore", Severity::Critical, found);
                let how = "get the database's server to answer; the restore then goes on by itself";
                return verdict.recommend(Action::Retry, how);
            }
            verdict.found("restore", Severity::Warning, found);
            verdict.recommend(Action::Wait, "wait for it (payram-updater watch)");
        }
        (Some(ending), _) if restore.restore.stuck.is_some() => {
            verdict.found("restore", Severity::Critical, ending.message.clone());
            verdict.recommend(Action::RestoreDb, "the message above says which data is in place");
        }
        (Some(ending), _) => {
            let status = match ending.failure_code {
                None => CheckStatus::Ok,
                Some(_) => CheckStatus::Warning,
            };
            verdict.check("restore", status, ending.message.clone());
        }
    }
}

/// Who else manages the container. One that would undo an upgrade, or puts an older image back on
/// the database, is a matter for today.
fn judge_owners(verdict: &mut Verdict, seen: &Seen) {
    let owners = match &seen.owners {
        None => return,
        Some(Err(reason)) => {
            return verdict.check("owners", CheckStatus::Unknown, reason.clone());
        }
        Some(Ok(owners)) => owners,
    };
    if owners.is_empty() {
        return verdict.check("owners", CheckStatus::Ok, "nothing else manages the container");
    }
    for owner in owners {
        let severity = if owner.is_at_odds { Severity::Warning } else { Severity::Info };
        verdict.found("owners", severity, owner.message.clone());
    }
    let at_odds: Vec<&str> =
        owners.iter().filter(|one| one.is_at_odds).map(|one| one.message.as_str()).collect();
    if !at_odds.is_empty() {
        // The worst stands among the checks, which have one line for all.
        verdict.check("owners", CheckStatus::Warning, at_odds.join("; "));
        // Without what they say of themselves, which would hide the next one from a shell.
        let commands = owners.iter().filter(|one| one.is_at_odds).flat_map(|one| &one.hand_over);
        let commands = commands.filter_map(|command| command.split("  # ").next());
        let commands: Vec<&str> = commands.filter(|command| !command.starts_with('#')).collect();
        if !commands.is_empty() {
            verdict.recommend(Action::HandOver, commands.join("; "));
        }
    }
}

fn judge_rest(verdict: &mut Verdict, seen: &Seen) {
    match &seen.backup {
        None => verdict.check("backup", CheckStatus::Unknown, "no backup was made by an upgrade"),
        Some((path, Ok(()))) => verdict.check("backup", CheckStatus::Ok, path.clone()),
        Some((path, Err(reason))) => {
            verdict.check("backup", CheckStatus::Warning, format!("{path}: {reason}"));
        }
    }
    if seen.leftovers.is_empty() {
        verdict.check("leftovers", CheckStatus::Ok, "none");
    } else {
        let found = format!("containers of earlier upgrades: {}", seen.leftovers.join(", "));
        verdict.found("leftovers", Severity::Info, found);
    }
}

/// Rows of failed versions that the shop's database does not have.
fn judge_rows(verdict: &mut Verdict, seen: &Seen) {
    let open = match &seen.set_aside {
        Ok(open) => open,
        Err(reason) => {
            return verdict.found("rows", Severity::Warning, format!("can't be read: {reason}"));
        }
    };
    if open.is_empty() {
        return verdict.check("rows", CheckStatus::Ok, "no rows of a failed version are set aside");
    }
    let found: Vec<String> = open.iter().map(SetAside::sentence).collect();
    verdict.found("rows", Severity::Warning, found.join("; "));
    let advice: Vec<String> = open.iter().map(SetAside::advice).collect();
    verdict.recommend(Action::LoadRows, advice.join("; "));
}

/// Versions that failed here: known, and no fault of what serves.
fn judge_quarantine(verdict: &mut Verdict, seen: &Seen) {
    let quarantined = match &seen.quarantined {
        Ok(quarantined) => quarantined,
        Err(reason) => {
            return verdict.found(
                "quarantine",
                Severity::Warning,
                format!("can't be read: {reason}"),
            );
        }
    };
    if quarantined.is_empty() {
        return verdict.check("quarantine", CheckStatus::Ok, "no version is quarantined");
    }
    let found: Vec<String> = quarantined.iter().map(quarantine::sentence).collect();
    verdict.found("quarantine", Severity::Info, found.join("; "));
    let commands: Vec<&str> = quarantined.iter().map(|one| one.clear.as_str()).collect();
    let how = format!(
        "wait for a newer version; or, once you know why it failed, allow it again: {}",
        commands.join("; ")
    );
    verdict.recommend(Action::Recover, how);
}

fn judge_updates(verdict: &mut Verdict, settings: &Settings, seen: &Seen) -> Option<UpdateInfo> {
    let (Ok(policy), Some(Ok(version))) = (&seen.policy, &seen.version) else {
        verdict.check("updateCheck", CheckStatus::Unknown, "policy or version is not known");
        return None;
    };
    let quarantined = seen.quarantined.as_deref().unwrap_or_default();
    let info = update_info(policy, version, settings.debug_version_mode, quarantined);
    verdict.check("updateCheck", CheckStatus::Ok, info.message.clone());
    Some(info)
}
