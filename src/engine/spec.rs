//! The next container's specification, from the old one's, both images and the manifest.
