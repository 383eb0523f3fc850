//! Looking again and again whether something is done: often at first, because most things are done soon.

use std::time::Duration;

use tokio::time::sleep;

const LONGEST: Duration = Duration::from_secs(2);

pub(crate) struct Poll(Duration);

impl Default for Poll {
    fn default() -> Self {
        Self(Duration::from_millis(50))
    }
}

impl Poll {
    pub(crate) async fn pause(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}
