-- What is published never changes, whatever program asks.
drop trigger if exists versions_update_published;
create trigger versions_update_published before update on versions when old.state = 'published'
begin select raise(abort, 'imgsrv: a published version is immutable'); end;

drop trigger if exists versions_delete_published;
create trigger versions_delete_published before delete on versions when old.state = 'published'
begin select raise(abort, 'imgsrv: a published version is immutable'); end;

-- The content of a version changes only while it is a draft.
drop trigger if exists artifacts_insert_frozen;
create trigger artifacts_insert_frozen before insert on artifacts
when exists (select 1 from versions where id = new.version_id and state <> 'draft')
begin select raise(abort, 'imgsrv: the version is not a draft'); end;

drop trigger if exists artifacts_update_frozen;
create trigger artifacts_update_frozen before update on artifacts
when exists (select 1 from versions where id in (old.version_id, new.version_id) and state <> 'draft')
begin select raise(abort, 'imgsrv: the version is not a draft'); end;

drop trigger if exists artifacts_delete_frozen;
create trigger artifacts_delete_frozen before delete on artifacts
when exists (select 1 from versions where id = old.version_id and state <> 'draft')
begin select raise(abort, 'imgsrv: the version is not a draft'); end;

drop trigger if exists attachments_insert_frozen;
create trigger attachments_insert_frozen before insert on attachments
when exists (select 1 from artifacts a join versions v on v.id = a.version_id where a.id = new.artifact_id and v.state <> 'draft')
begin select raise(abort, 'imgsrv: the version is not a draft'); end;

drop trigger if exists attachments_update_frozen;
create trigger attachments_update_frozen before update on attachments
when exists (select 1 from artifacts a join versions v on v.id = a.version_id where a.id in (old.artifact_id, new.artifact_id) and v.state <> 'draft')
begin select raise(abort, 'imgsrv: the version is not a draft'); end;

drop trigger if exists attachments_delete_frozen;
create trigger attachments_delete_frozen before delete on attachments
when exists (select 1 from artifacts a join versions v on v.id = a.version_id where a.id = old.artifact_id and v.state <> 'draft')
begin select raise(abort, 'imgsrv: the version is not a draft'); end;

-- An alias points at a published version of its own image.
drop trigger if exists aliases_insert_target;
create trigger aliases_insert_target before insert on aliases
when not exists (select 1 from versions where id = new.version_id and image_id = new.image_id and state = 'published')
begin select raise(abort, 'imgsrv: an alias points at a published version of its image'); end;

drop trigger if exists aliases_update_target;
create trigger aliases_update_target before update on aliases
when not exists (select 1 from versions where id = new.version_id and image_id = new.image_id and state = 'published')
begin select raise(abort, 'imgsrv: an alias points at a published version of its image'); end;

-- The bytes that a published version cites are not collected.
drop trigger if exists blobs_update_cited;
create trigger blobs_update_cited before update on blobs
when (new.state = 'deleting' or new.digest <> old.digest or new.size <> old.size) and (
  exists (select 1 from artifacts a join versions v on v.id = a.version_id where a.blob_digest = old.digest and v.state = 'published')
  or exists (
    select 1 from attachments t join artifacts a on a.id = t.artifact_id join versions v on v.id = a.version_id
    where t.blob_digest = old.digest and v.state = 'published'))
begin select raise(abort, 'imgsrv: a published version cites the blob'); end;

drop trigger if exists blobs_delete_cited;
create trigger blobs_delete_cited before delete on blobs
when
  exists (select 1 from artifacts a join versions v on v.id = a.version_id where a.blob_digest = old.digest and v.state = 'published')
  or exists (
    select 1 from attachments t join artifacts a on a.id = t.artifact_id join versions v on v.id = a.version_id
    where t.blob_digest = old.digest and v.state = 'published')
begin select raise(abort, 'imgsrv: a published version cites the blob'); end;
