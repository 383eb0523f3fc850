//! The programs that people download images with, as they run them, against a server that speaks TLS. Each story is
//! told on the embedded default and on PostgreSQL with Garage.

mod daemon;
mod downloads;
mod files;
mod images;
mod loops;
mod site;

/// Makes two tests of each story, an `async fn` that takes a [`Site`](site::Site): `embedded::…` and `services::…`.
macro_rules! on_both {
    ($($story:ident),+ $(,)?) => {
        on_both!(embedded: $($story),+);
        on_both!(services: $($story),+);
    };
    ($deployment:ident: $($story:ident),+) => {
        mod $deployment {
            use crate::consumers::site::Site;

            $(#[tokio::test(flavor = "multi_thread")]
            async fn $story() {
                super::$story(Site::$deployment().await).await;
            })+
        }
    };
}
use on_both;
