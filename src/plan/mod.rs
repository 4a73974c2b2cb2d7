//! From a request to a plan: policy, manifest, versions, gates, preflight. Reads, never changes.
