//! Makes a plan: fetches policy and manifest, finds the container and the version that serves,
//! and has the pure parts of `plan` decide.
//!
//! Called by `api` for plan and run, and by auto-update. Reads only. What became known before
//! a refusal stays in the plan, so that an operator sees how far it came.

use std::sync::Arc;

use serde_json::Value;

use super::architecture::tag_for;
use super::coming::Coming;
use super::current::{Evidence, current};
use super::manifest::Manifest;
use super::origin::Origin;
use super::policy::Policy;
use super::preflight::Preflight;
use super::route::{Question, Refusal, Route, resolve, route};
use super::surroundings;
use super::versions::Scheme;
use super::{
    Plan, PlanState, Request, RouteHop, after, environment, fetch, hash, image, owners, visibility,
};
use crate::app::container;
use crate::app::core::{self, Place, Probe, Silent};
use crate::config::Settings;
use crate::engine::{Engine, EngineFacts};
use crate::journal::{HopTarget, JobBody, Mode};
use crate::machine::facts::{CoreRules, RollbackDatabase, TargetImage};
use crate::machine::failure::{Failure, FailureCode};
use crate::names::VERSION_LABEL;

/// Plans what is asked; `job` is there exactly when the plan is ready.
pub async fn make(settings: &Settings, engine: &dyn Engine, request: &Request) -> Plan {
    let mut making = Making {
        settings,
        engine,
        request,
        plan: blank(request),
        preflight: Preflight::default(),
        risk: None,
    };
    let result = making.all().await;
    let Making { mut plan, preflight, risk, .. } = making;
    plan.checks = preflight.checks;
    match result {
        Ok(job) => {
            plan.state = PlanState::Ready;
            plan.message = summary(&plan, job.dry_run, risk.as_deref());
            plan.notes.extend(risk);
            plan.job = Some(job);
        }
        Err(refusal) => {
            plan.failure_code = refusal.failure.code.to_string();
            plan.message = refusal.failure.message;
            plan.stopped_at = refusal.stopped_at.or(plan.stopped_at);
        }
    }
    plan
}

/// A plan of which nothing is known but the request.
fn blank(request: &Request) -> Plan {
    Plan {
        state: PlanState::Failed,
        mode: request.mode,
        requested_target: request.requested_target.clone(),
        resolved_target: String::new(),
        failure_code: String::new(),
        message: String::new(),
        image_repo: String::new(),
        container_name: String::new(),
        from_version: None,
        route: Vec::new(),
        stopped_at: None,
        checks: Vec::new(),
        owners: Vec::new(),
        environment: None,
        afterwards: Vec::new(),
        on_failure: None,
        expected_downtime_seconds: None,
        expected_downtime_from: None,
        notes: Vec::new(),
        quarantined: Vec::new(),
        plan_hash: None,
        job: None,
    }
}

struct Making<'a> {
    settings: &'a Settings,
    engine: &'a dyn Engine,
    request: &'a Request,
    plan: Plan,
    preflight: Preflight,
    /// What goes on by `--force` alone.
    risk: Option<String>,
}

/// The container that serves.
struct Serving {
    id: String,
    name: String,
    inspection: Value,
    /// The inspection of its image; none where that is gone.
    image: Option<Value>,
    origin: Origin,
}

impl Making<'_> {
    async fn all(&mut self) -> Result<JobBody, Refusal> {
        let policy = self.policy().await?.map(Arc::new);
        let manifest = fetch::manifest(self.settings).await?;
        self.plan.image_repo = self
            .settings
            .image_repo_override
            .clone()
            .unwrap_or_else(|| manifest.image_repo.clone());
        let mut question = Question {
            policy: policy.as_deref(),
            mode: self.request.mode,
            requested: &self.request.requested_target,
            current: None,
            force: self.request.force,
            debug_version_mode: self.settings.debug_version_mode,
        };
        self.plan.resolved_target = aside(&policy, &question, resolve).await?.version;

        let facts = self.preflight.engine(self.engine).await;
        self.unless_refused()?;
        let serving = self.serving(&manifest).await?;
        self.preflight.container(&serving.name, &serving.inspection);
        self.unless_refused()?;
        self.owners(&serving).await;

        let probe = Probe::of(self.settings);
        let core = probe.find(self.engine, &serving.inspection).await;
        let (version, from_rules) = self
            .current(&probe, &core, &serving, &manifest, policy.as_deref(), question.scheme())
            .await;
        self.plan.from_version.clone_from(&version);
        self.visible(&probe, core, &serving, &from_rules).await;
        question.current = version.as_deref();
        let found = aside(&policy, &question, route).await;
        let mut found = self.unless_unseen(found)?;
        self.plan.notes.append(&mut found.notes);
        self.plan.stopped_at = found.stopped_at.take();
        let hops = self.hops(&found, &serving, &manifest, policy.as_deref(), question.scheme())?;

        let database = self
            .preflight
            .database(self.settings, self.engine, &serving.id, &serving.inspection)
            .await;
        let shop = surroundings::Shop {
            settings: self.settings,
            engine: self.engine,
            id: &serving.id,
            name: &serving.name,
            inspection: &serving.inspection,
        };
        let notes = surroundings::look(&shop, &mut self.preflight).await;
        self.plan.notes.extend(notes);
        if let Some(facts) = facts {
            let coming = self.images(&facts, &serving, &hops).await;
            self.changes(&serving, &hops, &coming).await;
            self.preflight.postgres(database.major, serving.image.as_ref(), &hops, &coming);
            let sizes: Vec<Option<u64>> = coming.iter().map(|image| image.disk_bytes).collect();
            self.preflight.space(self.settings, &facts, &sizes, &database).await;
        }
        self.unless_refused()?;
        let seen = hash::Seen {
            settings: self.settings,
            mode: self.request.mode,
            container: &serving.inspection,
            from: self.plan.from_version.as_deref(),
            route: &self.plan.route,
            stopped_at: self.plan.stopped_at.as_ref(),
        };
        self.plan.plan_hash = Some(hash::of(&seen, self.engine).await);
        let from = self.plan.from_version.as_deref().unwrap_or("the version that serves now");
        self.plan.on_failure = Some(on_failure(self.settings.rollback_database, from));
        Ok(JobBody {
            mode: self.request.mode,
            requested_target: self.request.requested_target.clone(),
            resolved_target: self.plan.resolved_target.clone(),
            source: self.request.source.clone(),
            from_version: self.plan.from_version.clone(),
            container_name: serving.name,
            from_rules,
            overlay: manifest.overlay(&self.plan.resolved_target, question.scheme()),
            dry_run: self.settings.dry_run,
            hops,
            afterwards: self.plan.afterwards.clone(),
        })
    }

    /// What will be another way once the container was replaced.
    async fn changes(&mut self, serving: &Serving, hops: &[HopTarget], coming: &[Coming]) {
        let shop = after::Shop {
            settings: self.settings,
            engine: self.engine,
            id: &serving.id,
            name: &serving.name,
            inspection: &serving.inspection,
        };
        let changes = after::look(&shop, hops, &mut self.preflight).await;
        self.plan.notes.extend(changes.notes);
        let owners = self.plan.owners.iter().filter_map(|owner| owner.after.clone());
        self.plan.afterwards = owners.chain(changes.afterwards).collect();
        let new = coming.last().and_then(|image| image.config.as_ref());
        self.plan.environment = serving
            .image
            .as_ref()
            .map(|old| environment::compare(&serving.inspection["Config"], &old["Config"], new));
    }

    /// The policy; in manual mode a policy that can't be had stops nothing but `latest`.
    async fn policy(&mut self) -> Result<Option<Policy>, Failure> {
        let failure = match fetch::policy(self.settings).await {
            Ok(policy) => return Ok(Some(policy)),
            Err(failure) => failure,
        };
        match self.request.mode {
            Mode::Dashboard => Err(failure),
            Mode::Manual if self.request.requested_target.trim().eq_ignore_ascii_case("latest") => {
                let message = format!("latest needs the policy: {}", failure.message);
                Err(Failure::new(FailureCode::PolicyRequired, message))
            }
            Mode::Manual => {
                self.plan.notes.push(format!("without the policy: {}", failure.message));
                Ok(None)
            }
        }
    }

    async fn serving(&mut self, manifest: &Manifest) -> Result<Serving, Failure> {
        let found =
            container::find(self.engine, self.settings, manifest.container_name(None)).await?;
        self.plan.container_name.clone_from(&found.name);
        let inspection = self
            .engine
            .inspect_container(&found.id)
            .await
            .map_err(|error| Failure::from(&error))?
            .ok_or_else(|| {
                let message = format!("container {} is gone", found.name);
                Failure::new(FailureCode::ContainerNotFound, message)
            })?;
        let id = inspection["Image"].as_str().unwrap_or(&found.image);
        let image = self.engine.inspect_image(id).await.map_err(|error| Failure::from(&error))?;
        let origin = Origin::of(&inspection, image.as_ref());
        self.plan.notes.extend(origin.note.clone());
        Ok(Serving { id: found.id, name: found.name, inspection, image, origin })
    }

    /// What the registry says of the images of the route, and whether the running one may be
    /// replaced by them.
    async fn images(
        &mut self,
        facts: &EngineFacts,
        serving: &Serving,
        hops: &[HopTarget],
    ) -> Vec<Coming> {
        let targets: Vec<TargetImage> = hops.iter().map(|hop| hop.target.clone()).collect();
        let running = serving.image.as_ref();
        let coming = image::look(self.engine, facts, running, &targets, &mut self.preflight).await;
        let replaced = image::Replaced {
            settings: self.settings,
            engine: self.engine,
            origin: &serving.origin,
            repo: &self.plan.image_repo,
            version: self.plan.from_version.as_deref(),
            is_forced: self.request.force && self.request.mode == Mode::Manual,
        };
        let risk = image::may_be_replaced(&replaced, &mut self.preflight).await;
        self.risk = match (self.risk.take(), risk) {
            (Some(one), Some(other)) => Some(format!("{one}; {other}")),
            (one, other) => one.or(other),
        };
        coming
    }

    /// Who else manages the container. What is refused for it waits for the route, as in `visible`.
    async fn owners(&mut self, serving: &Serving) {
        let next = format!("{}:{}", self.plan.image_repo, self.plan.resolved_target);
        let shop = owners::Shop {
            settings: self.settings,
            engine: self.engine,
            name: &serving.name,
            inspection: &serving.inspection,
            next_image: Some(&next),
        };
        match owners::look(&shop).await {
            Ok(found) => {
                self.preflight.owners(&serving.name, &found);
                self.plan.owners = found;
            }
            Err(reason) => {
                let message = format!("who else manages {} is not known: {reason}", serving.name);
                let code = FailureCode::RuntimeInspectionFailed;
                self.preflight.refused("owners", Failure::new(code, message));
            }
        }
    }

    /// Looks at the running version as the gate will. What is refused here waits for the route:
    /// that there is nothing to do, or that it may not be done, says more.
    async fn visible(
        &mut self,
        probe: &Probe,
        core: Result<Place, Silent>,
        serving: &Serving,
        rules: &CoreRules,
    ) {
        let container = &serving.inspection;
        let sight = visibility::look(probe, self.engine, &serving.id, container, rules, core).await;
        let asking = visibility::Asking {
            settings: self.settings,
            mode: self.request.mode,
            force: self.request.force,
            version: self.plan.from_version.as_deref(),
            rules,
        };
        self.risk = visibility::weigh(sight, &asking, &mut self.preflight);
    }

    /// The route; a version that is unknown because it can't be seen is refused for that.
    fn unless_unseen(&mut self, found: Result<Route, Refusal>) -> Result<Route, Refusal> {
        match found {
            Err(refusal) if refusal.failure.code == FailureCode::CurrentVersionUnknown => {
                self.unless_refused()?;
                Err(refusal)
            }
            routed => routed,
        }
    }

    /// The version that serves, and how it is asked for its health.
    async fn current(
        &mut self,
        probe: &Probe,
        core: &Result<Place, Silent>,
        serving: &Serving,
        manifest: &Manifest,
        policy: Option<&Policy>,
        scheme: Scheme<'_>,
    ) -> (Option<String>, CoreRules) {
        let api = CoreRules::Api { health_path: manifest.health_path.clone() };
        let reported = match core {
            Ok(place) => match probe.version(place, &api, &serving.inspection).await {
                Ok(version) => Some(version),
                Err(reason) => {
                    self.plan.notes.push(format!("the core does not say its version: {reason}"));
                    None
                }
            },
            // Said by the check.
            Err(_silent) => None,
        };
        let evidence = Evidence {
            reported: reported.as_deref(),
            stated: self.request.current_version.as_deref(),
            label: serving.inspection["Config"]["Labels"][VERSION_LABEL].as_str(),
            tag: serving.origin.tag.as_deref(),
        };
        let (version, note) = current(&evidence, self.request.mode, scheme);
        self.plan.notes.extend(note);
        let init = policy.and_then(|policy| policy.updater_api_init_version.as_deref());
        let rules = match &version {
            Some(version) => core::rules_for(version, init, Some(&manifest.health_path)),
            // It greets and has no version endpoint: that is what comes before the API.
            None if core.is_ok() => CoreRules::Legacy,
            None => api,
        };
        (version, rules)
    }

    fn hops(
        &mut self,
        found: &Route,
        serving: &Serving,
        manifest: &Manifest,
        policy: Option<&Policy>,
        scheme: Scheme<'_>,
    ) -> Result<Vec<HopTarget>, Failure> {
        let init = policy.and_then(|policy| policy.updater_api_init_version.as_deref());
        let mut hops = Vec::with_capacity(found.hops.len());
        for stop in &found.hops {
            let (tag, note) =
                tag_for(stop, serving.origin.tag.as_deref(), policy, scheme, self.request.mode)?;
            self.plan.notes.extend(note);
            self.plan.route.push(RouteHop {
                version: stop.version.clone(),
                image: format!("{}:{tag}", self.plan.image_repo),
                why: stop.why.clone(),
            });
            self.plan.resolved_target.clone_from(&stop.version);
            hops.push(HopTarget {
                version: stop.version.clone(),
                target: TargetImage { repo: self.plan.image_repo.clone(), tag },
                rules: core::rules_for(&stop.version, init, Some(&manifest.health_path)),
                why: stop.why.clone(),
                overlay: Some(manifest.overlay(&stop.version, scheme)),
            });
        }
        Ok(hops)
    }

    fn unless_refused(&mut self) -> Result<(), Failure> {
        self.preflight.failure.take().map_or(Ok(()), Err)
    }
}

/// Decides on a thread of its own: a policy may be as large as a mebibyte.
async fn aside<T: Send + 'static>(
    policy: &Option<Arc<Policy>>,
    question: &Question<'_>,
    decide: fn(&Question<'_>) -> T,
) -> T {
    let policy = policy.clone();
    let (mode, force, debug_version_mode) =
        (question.mode, question.force, question.debug_version_mode);
    let (requested, current) = (question.requested.to_owned(), question.current.map(str::to_owned));
    let decided = tokio::task::spawn_blocking(move || {
        decide(&Question {
            policy: policy.as_deref(),
            mode,
            requested: &requested,
            current: current.as_deref(),
            force,
            debug_version_mode,
        })
    });
    match decided.await {
        Ok(decided) => decided,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// `1.9.6 to 3.3.0 in 3 hops: 1.9.7, 2.0.0, 3.3.0`
fn summary(plan: &Plan, dry_run: bool, risk: Option<&str>) -> String {
    let from = plan.from_version.as_deref().unwrap_or("an unknown version");
    let hops: Vec<&str> = plan.route.iter().map(|hop| hop.version.as_str()).collect();
    let mut text = format!("{from} to {}", plan.resolved_target);
    if hops.len() > 1 {
        text.push_str(&format!(" in {} hops: {}", hops.len(), hops.join(", ")));
    }
    if let Some(gate) = &plan.stopped_at {
        text.push_str(&format!("; it ends below {}, which must be passed by hand", gate.version));
    }
    if let Some(risk) = risk {
        text.push_str(&format!("; {risk}"));
    }
    if dry_run {
        text.push_str("; EXECUTION_MODE is dry-run, so a run ends with the plan");
    }
    text
}

/// What becomes of the shop and of its rows where the new version fails, as the settings have it.
fn on_failure(setting: RollbackDatabase, from: &str) -> String {
    let how = match setting {
        RollbackDatabase::Lossless => {
            "with the rows that its workers wrote, or with the database as it was before it migrated and wrote none; where it did both, nothing is started until you decide"
        }
        RollbackDatabase::Manual => {
            "where the new version changed nothing; otherwise nothing is started until you decide"
        }
        RollbackDatabase::Always => {
            "and where the new version changed the database, with it as it was before; what was written is kept aside"
        }
    };
    format!("{from} comes back by itself, {how}")
}
