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
    History,
    Plan,
    Run,
    Cancel,
    Recover,
    Sync,
    Backups,
    BackupCreate,
    BackupRestore,
}

const GET: &str = "GET";
const POST: &str = "POST";

const ROUTES: &[(&str, &str, Endpoint)] = &[
    ("/health", GET, Endpoint::Health),
    ("/upgrade/status", GET, Endpoint::Status),
    ("/upgrade/last", GET, Endpoint::Last),
    ("/upgrade/logs", GET, Endpoint::Logs),
    ("/upgrade/playbook", GET, Endpoint::Playbook),
    ("/upgrade/inspect", GET, Endpoint::Inspect),
    ("/upgrade/events", GET, Endpoint::Events),
    ("/upgrade/history", GET, Endpoint::History),
    ("/history", GET, Endpoint::History),
    ("/upgrade/plan", POST, Endpoint::Plan),
    ("/upgrade/run", POST, Endpoint::Run),
    ("/upgrade/cancel", POST, Endpoint::Cancel),
    ("/upgrade/recover", POST, Endpoint::Recover),
    ("/upgrade/sync", POST, Endpoint::Sync),
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

/// The endpoint of a method and a path.
pub(super) fn endpoint(method: &Method, path: &str) -> Result<Endpoint, NoRoute> {
    let Some((_, wanted, endpoint)) = ROUTES.iter().find(|(known, _, _)| *known == path) else {
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
}
