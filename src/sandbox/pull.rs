//! A pull of the make-believe engine: an image that comes in pieces, each of them told.
//!
//! Called by `route`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;

use super::answer::{Answer, Reply, lines};
use super::world::World;

/// Pieces in which a pull is told.
const PIECES: u64 = 10;

/// Pulls an image and tells how far it is; a client that goes away ends it.
pub(super) fn pull(world: Arc<World>, repo: &str, tag: &str) -> Answer<Reply> {
    let release = world.release(repo, tag)?;
    let (sender, receiver) = mpsc::channel(4);
    let (tag, total) = (tag.to_owned(), release.image_mb * 1_000_000);
    let pause = Duration::from_millis(release.pull_ms / PIECES);
    tokio::spawn(async move {
        for piece in 1..=PIECES {
            let line = json!({
                "status": "Downloading", "id": "layer1",
                "progressDetail": {"current": total * piece / PIECES, "total": total},
            });
            if sender.send(line).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
            if let Some(why) = release.pull_fails.as_ref().filter(|_| piece == PIECES / 2) {
                let line = json!({"error": why, "errorDetail": {"message": why}});
                // Whether it is heard or not, the pull has failed.
                let _ = sender.send(line).await;
                return;
            }
        }
        let last = match world.add_image(&tag, &release) {
            Ok(()) => json!({"status": "Pull complete", "id": "layer1"}),
            Err(refusal) => json!({"error": refusal.message}),
        };
        let _ = sender.send(last).await;
    });
    Ok(lines(receiver))
}
