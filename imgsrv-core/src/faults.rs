//! Where tests make things go wrong: before and after each transaction and each call of the store.

use crate::Result;
#[cfg(feature = "testing")]
use crate::testing::{FaultPlan, Planned};

/// What a test wants to go wrong; nothing, except with the feature `testing`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    #[cfg(feature = "testing")]
    plan: Option<FaultPlan>,
}

impl Faults {
    #[cfg(feature = "testing")]
    pub(crate) fn of(plan: FaultPlan) -> Self {
        Self { plan: Some(plan) }
    }

    pub(crate) fn from_env() -> Self {
        Self {
            #[cfg(feature = "testing")]
            plan: FaultPlan::from_env(),
        }
    }

    /// Right before something happens.
    #[cfg_attr(not(feature = "testing"), expect(clippy::unused_async, unused_variables, reason = "nothing goes wrong"))]
    pub(crate) async fn pass(&self, site: &'static str) -> Result<Passing> {
        Ok(Passing {
            #[cfg(feature = "testing")]
            planned: match &self.plan {
                Some(plan) => plan.pass(site).await?,
                None => None,
            },
        })
    }
}

/// Something happens.
#[must_use]
pub(crate) struct Passing {
    #[cfg(feature = "testing")]
    planned: Option<Planned>,
}

impl Passing {
    /// It has happened.
    #[cfg_attr(
        not(feature = "testing"),
        expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "nothing goes wrong")
    )]
    pub(crate) fn done<T>(self, happened: T) -> Result<T> {
        #[cfg(feature = "testing")]
        if let Some(planned) = self.planned {
            planned.happen()?;
        }
        Ok(happened)
    }
}
