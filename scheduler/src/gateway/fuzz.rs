//! The gateway's own decoders for the fuzz targets.

use super::list::Page;
use super::submit;
use muster_common::job::{Launch, Scheduling};

pub(crate) fn job_file(json: &str) -> Option<(Scheduling, Launch)> {
    submit::parse(json).ok()
}

pub(crate) fn list_page(text: &str) -> bool {
    let Ok(page) = Page::read(text) else { return false };
    assert_eq!(Page::read(&page.text()).ok(), Some(page), "a page does not read back");
    true
}
