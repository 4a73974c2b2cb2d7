//! The table of paths: which endpoint a path is, and by which method.

use hyper::Method;

/// Everything that can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Health,
    Status,
    Last,
    Logs,
    Playbook,
    Inspect,
    Events,
    Jobs,
    Job,
    JobLogs,
    JobEvents,
    Versions,
    FailureCodes,
    Metrics,
    OpenApi,
    History,
    Plan,
    Run,
    Rehearse,
    Cancel,
    Recover,
    Sync,
    Cleanup,
    Backups,
    BackupCreate,
    BackupRestore,
}

const GET: &str = "GET";
const POST: &str = "POST";

/// Path, method, endpoint; `openapi` describes each of them.
pub(super) const ROUTES: &[(&str, &str, Endpoint)] = &[
    ("/health", GET, Endpoint::Health),
    ("/upgrade/status", GET, Endpoint::Status),
    ("/upgrade/last", GET, Endpoint::Last),
    ("/upgrade/logs", GET, Endpoint::Logs),
    ("/upgrade/playbook", GET, Endpoint::Playbook),
    ("/upgrade/inspect", GET, Endpoint::Inspect),
    ("/upgrade/events", GET, Endpoint::Events),
    ("/upgrade/history", GET, Endpoint::History),
    ("/upgrade/jobs", GET, Endpoint::Jobs),
    ("/upgrade/jobs/{id}", GET, Endpoint::Job),
    ("/upgrade/jobs/{id}/logs", GET, Endpoint::JobLogs),
    ("/upgrade/jobs/{id}/events", GET, Endpoint::JobEvents),
    ("/versions", GET, Endpoint::Versions),
    ("/failure-codes", GET, Endpoint::FailureCodes),
    ("/history", GET, Endpoint::History),
    ("/metrics", GET, Endpoint::Metrics),
    ("/openapi.json", GET, Endpoint::OpenApi),
    ("/upgrade/plan", POST, Endpoint::Plan),
    ("/upgrade/run", POST, Endpoint::Run),
    ("/upgrade/rehearse", POST, Endpoint::Rehearse),
    ("/upgrade/cancel", POST, Endpoint::Cancel),
    ("/upgrade/recover", POST, Endpoint::Recover),
    ("/upgrade/sync", POST, Endpoint::Sync),
    ("/upgrade/cleanup", POST, Endpoint::Cleanup),
    ("/backups", GET, Endpoint::Backups),
    ("/backup/create", POST, Endpoint::BackupCreate),
    ("/backup/restore", POST, Endpoint::BackupRestore),
];

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// 404.
    UnknownPath,
    /// 405, with the method that the path knows.
    WrongMethod { allow: &'static str },
}

/// What stands for the id of a job in a path.
const ID: &str = "{id}";

/// What a path of the table calls the job in it.
pub(super) fn job_parameter(known: &str) -> Option<&str> {
    known.split('/').find_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// The job that a path names.
pub(super) fn job_of(path: &str) -> &str {
    let rest = path.strip_prefix("/upgrade/jobs/").unwrap_or_default();
    rest.split('/').next().unwrap_or_default()
}

/// Whether a path is the one of the table.
fn is_path(known: &str, path: &str) -> bool {
    if !known.contains(ID) {
        return known == path;
    }
    let (known, path): (Vec<&str>, Vec<&str>) =
        (known.split('/').collect(), path.split('/').collect());
    let fits = |(known, part): (&&str, &&str)| known == part || *known == ID && !part.is_empty();
    known.len() == path.len() && known.iter().zip(&path).all(fits)
}

/// The endpoint of a method and a path.
pub(super) fn endpoint(method: &Method, path: &str) -> Result<Endpoint, NoRoute> {
    let Some((_, wanted, endpoint)) = ROUTES.iter().find(|(known, _, _)| is_path(known, path))
    else {
        return Err(NoRoute::UnknownPath);
    };
    if method.as_str() == *wanted {
        return Ok(*endpoint);
    }
    Err(NoRoute::WrongMethod { allow: wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_by_its_own_method_only() {
        assert_eq!(endpoint(&Method::GET, "/health"), Ok(Endpoint::Health));
        assert_eq!(endpoint(&Method::GET, "/history"), endpoint(&Method::GET, "/upgrade/history"));
        assert_eq!(
            endpoint(&Method::GET, "/upgrade/run"),
            Err(NoRoute::WrongMethod { allow: "POST" })
        );
        assert_eq!(
            endpoint(&Method::DELETE, "/health"),
            Err(NoRoute::WrongMethod { allow: "GET" })
        );
        assert_eq!(endpoint(&Method::GET, "/health/"), Err(NoRoute::UnknownPath));
        assert_eq!(endpoint(&Method::GET, "/"), Err(NoRoute::UnknownPath));
    }

    #[test]
    fn a_job_has_pages_of_its_own() {
        let at = |path: &str| endpoint(&Method::GET, path);
        assert_eq!(at("/upgrade/jobs"), Ok(Endpoint::Jobs));
        assert_eq!(at("/upgrade/jobs/job-1"), Ok(Endpoint::Job));
        assert_eq!(at("/upgrade/jobs/job-1/logs"), Ok(Endpoint::JobLogs));
        assert_eq!(at("/upgrade/jobs/job-1/events"), Ok(Endpoint::JobEvents));
        for path in
            ["/upgrade/jobs/", "/upgrade/jobs//logs", "/upgrade/jobs/a/b", "/upgrade/jobs/a/logs/"]
        {
            assert_eq!(at(path), Err(NoRoute::UnknownPath), "{path}");
        }
        assert_eq!(job_of("/upgrade/jobs/job-1/logs"), "job-1");
        let posted = endpoint(&Method::POST, "/upgrade/jobs/job-1");
        assert_eq!(posted, Err(NoRoute::WrongMethod { allow: "GET" }));
    }
}
