//! What stands in requests and answers, apart from the model: the wire is a contract, the model is not.
//!
//! Requests deny members that they do not know; answers leave out members that have no value.

/// The envelope of a list.
macro_rules! list {
    ($(#[$doc:meta])* $name:ident { $member:ident: $item:ident }) => {
        $(#[$doc])*
        #[derive(Debug, poem_openapi::Object)]
        #[oai(skip_serializing_if_is_none)]
        pub(crate) struct $name {
            $member: Vec<$item>,
            /// Where the next page begins.
            next_cursor: Option<crate::text::Text<imgsrv_core::model::Cursor>>,
        }

        impl From<imgsrv_core::model::Paged<imgsrv_core::model::$item>> for $name {
            fn from(page: imgsrv_core::model::Paged<imgsrv_core::model::$item>) -> Self {
                Self {
                    $member: page.items.into_iter().map(Into::into).collect(),
                    next_cursor: page.next.map(crate::text::Text),
                }
            }
        }
    };
}

mod catalog;
mod directory;
mod job;
mod upload;

pub(crate) use catalog::{
    AddArtifact, AddAttachment, Alias, Aliases, Artifact, Artifacts, Attachment, CreateImage, CreateVersion, Image,
    Images, Manifest, PutAlias, Version, Versions,
};
pub(crate) use directory::Directory;
pub(crate) use job::PublishJob;
pub(crate) use upload::{BeginUpload, CompleteUpload, Parts, StoredPart, Upload, Uploads};
