//! What `inspect` says of the journal's hash chain: whether it holds, and how much of it was
//! walked when. It never walks where a request waits for something else.

use std::sync::Arc;
use std::time::Duration;

use crate::journal::{ChainState, ChainWatch, JournalError, Reader};

/// How long a report waits for the walk before it says how far it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// How the chain is looked at.
#[derive(Clone, Copy)]
pub enum Chain<'a> {
    /// From the first row to the last, now: in a command, which has all the time.
    Whole,
    /// By the daemon's own walk, from the last row known to be good.
    Watched(&'a ChainWatch),
}

/// What there is to say of it; each is a sentence.
pub(super) enum ChainSeen {
    Holds(String),
    /// It holds as far as it was walked.
    Unfinished(String),
    Fault(String),
}

/// Looks.
pub(super) async fn look(reader: &Arc<Reader>, chain: Chain<'_>) -> ChainSeen {
    match chain {
        Chain::Whole => match read(reader, Reader::verify).await {
            Ok(Ok(holds)) => ChainSeen::Holds(format!("{} rows, the chain holds", holds.rows)),
            Ok(Err(broken)) => ChainSeen::Fault(format!("row {}: {}", broken.seq, broken.reason)),
            Err(reason) => ChainSeen::Fault(reason),
        },
        Chain::Watched(watch) => match tokio::time::timeout(PATIENCE, watch.look()).await {
            Ok(state) => sentence(&state),
            Err(_) => sentence(&unfinished(watch.state())),
        },
    }
}

/// A walk that was not waited for: what is known is from before it.
fn unfinished(mut state: ChainState) -> ChainState {
    state.rows = state.rows.max(state.walked + 1);
    state
}

fn sentence(state: &ChainState) -> ChainSeen {
    let ChainState { walked, rows, whole, fault, .. } = state;
    if let Some(reason) = fault {
        return ChainSeen::Fault(reason.clone());
    }
    match whole {
        None => ChainSeen::Unfinished(format!(
            "the chain holds up to row {walked} of {rows}; its walk since the daemon's start goes on"
        )),
        Some((_, at)) if walked < rows => ChainSeen::Unfinished(format!(
            "the chain holds up to row {walked} (the whole was last walked at {}); the rows after it are still walked",
            at.rfc3339()
        )),
        Some((upto, at)) if upto >= walked => ChainSeen::Holds(format!(
            "{walked} rows, the chain holds (the whole was walked at {})",
            at.rfc3339()
        )),
        Some((upto, at)) => ChainSeen::Holds(format!(
            "{walked} rows, the chain holds (rows up to {upto} were walked at {}, those after them now)",
            at.rfc3339()
        )),
    }
}

/// Reads the journal where it may block.
pub(super) async fn read<T: Send + 'static>(
    reader: &Arc<Reader>,
    read: impl FnOnce(&Reader) -> Result<T, JournalError> + Send + 'static,
) -> Result<T, String> {
    let reader = Arc::clone(reader);
    match tokio::task::spawn_blocking(move || read(&reader)).await {
        Ok(read) => read.map_err(|error| error.to_string()),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn said(state: &ChainState) -> String {
        match sentence(state) {
            ChainSeen::Holds(text) => format!("holds: {text}"),
            ChainSeen::Unfinished(text) => format!("unfinished: {text}"),
            ChainSeen::Fault(text) => format!("fault: {text}"),
        }
    }

    #[test]
    fn inspect_says_how_much_of_the_chain_was_walked_and_when() {
        let at = Timestamp::from_millis(0);
        let mut state = ChainState::default();
        (state.walked, state.rows) = (200, 900);
        assert_eq!(
            said(&state),
            "unfinished: the chain holds up to row 200 of 900; its walk since the daemon's start goes on"
        );
        (state.walked, state.whole) = (900, Some((900, at)));
        assert_eq!(
            said(&state),
            format!("holds: 900 rows, the chain holds (the whole was walked at {})", at.rfc3339())
        );
        (state.walked, state.rows) = (950, 950);
        assert_eq!(
            said(&state),
            format!(
                "holds: 950 rows, the chain holds (rows up to 900 were walked at {}, those after them now)",
                at.rfc3339()
            )
        );
        state.fault = Some("row 7: changed".into());
        assert_eq!(said(&state), "fault: row 7: changed");
    }
}
