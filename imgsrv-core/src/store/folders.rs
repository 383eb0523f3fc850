//! What files need that opendal does not do.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::blocking;
use crate::Result;

/// How many folders are remembered as synced. To forget one costs another sync.
const REMEMBERED: usize = 10_000;

/// A store in folders: how much they have room for, and when what is in them is durable. opendal syncs a file when it closes
/// it, but not the folders that name it.
#[derive(Debug)]
pub(super) struct Folders {
    root: PathBuf,
    /// Folders below the root whose names are durable.
    named: Mutex<HashSet<PathBuf>>,
    /// Who has one has a file synced that is still being written.
    early: Arc<Semaphore>,
}

impl Folders {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, named: Mutex::default(), early: Arc::new(Semaphore::new(1)) }
    }

    /// How many bytes are left.
    pub(super) async fn free(&self) -> Result<u64> {
        let root = self.root.clone();
        blocking(move || {
            let stat = rustix::fs::statvfs(&root)?;
            Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
        })
        .await
    }

    /// Begins to sync an object that is still being written, and says whether it did: another one may be under way, and
    /// then the system finds the time for this one.
    ///
    /// That it fails does not matter here: Linux tells each handle of an error that came after it was opened, so the sync
    /// at the end, through the handle that wrote, fails as well.
    pub(super) fn sync_early(&self, key: &str) -> bool {
        let Ok(permit) = Arc::clone(&self.early).try_acquire_owned() else { return false };
        let path = self.root.join(key);
        tokio::task::spawn_blocking(move || {
            File::open(path).and_then(|file| file.sync_data()).ok();
            drop(permit);
        });
        true
    }

    /// Makes the name of a new object durable, and the names of the folders above it that this process has not made
    /// durable yet: a name lies in the folder above, so that one is synced.
    pub(super) async fn sync_above(&self, key: &str) -> Result<()> {
        let Some(folder) = Path::new(key).parent() else { return Ok(()) };
        let new: Vec<PathBuf> = {
            let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
            let below_root = folder.ancestors().take_while(|above| !above.as_os_str().is_empty());
            below_root.filter(|above| !named.contains(*above)).map(Path::to_owned).collect()
        };
        let mut sync = vec![self.root.join(folder)];
        sync.extend(new.iter().filter_map(|folder| folder.parent()).map(|above| self.root.join(above)));
        blocking(move || sync.iter().try_for_each(|folder| File::open(folder)?.sync_all())).await?;
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() >= REMEMBERED {
            named.clear();
        }
        named.extend(new);
        Ok(())
    }
}
