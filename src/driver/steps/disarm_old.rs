//! `disarm_old`: the old container does not start again by itself from here on. The last moment at which
//! a mistake costs no downtime.

use std::path::Path;

use crate::driver::context::{StepContext, done};
use crate::driver::effects::containers::no_restart;
use crate::error::{Trouble, fail};
use crate::machine::Fact;
use crate::machine::facts::Copy;
use crate::machine::failure::FailureCode;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Holding back the old container's restart policy";

pub(in crate::driver) async fn act(cx: &StepContext<'_>, copy: &Copy) -> Result<Fact, Trouble> {
    // The last moment at which a stranger on the database costs no downtime.
    let old = cx.inspect_present(cx.old_id(), "old").await?;
    cx.nobody_else_runs(&old).await?;
    cx.next_is_there().await?;
    if let Copy::Directory { source, .. } = copy {
        let works = cx.works_nowhere_but_in(&old, Path::new(source)).await?;
        works.or_else(|unseen| fail(FailureCode::RuntimeInspectionFailed, unseen))?;
    }
    cx.set_policy(cx.old(), &no_restart()).await?;
    done()
}
