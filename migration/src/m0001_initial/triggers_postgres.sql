-- What is published never changes, whatever program asks.
create or replace function imgsrv_refuse_published() returns trigger language plpgsql as $$
begin
  if old.state = 'published' then
    raise exception 'imgsrv: a published version is immutable';
  end if;
  return case tg_op when 'DELETE' then old else new end;
end $$;
drop trigger if exists versions_published on versions;
create trigger versions_published before update or delete on versions
  for each row execute function imgsrv_refuse_published();

-- The content of a version changes only while it is a draft; FOR SHARE waits for a publish that is under way.
create or replace function imgsrv_refuse_frozen(uuid) returns void language plpgsql as $$
declare
  found_state text;
begin
  select state into found_state from versions where id = $1 for share;
  if found_state <> 'draft' then
    raise exception 'imgsrv: the version is not a draft';
  end if;
end $$;

create or replace function imgsrv_artifacts_frozen() returns trigger language plpgsql as $$
begin
  if tg_op <> 'INSERT' then perform imgsrv_refuse_frozen(old.version_id); end if;
  if tg_op <> 'DELETE' then perform imgsrv_refuse_frozen(new.version_id); end if;
  return case tg_op when 'DELETE' then old else new end;
end $$;
drop trigger if exists artifacts_frozen on artifacts;
create trigger artifacts_frozen before insert or update or delete on artifacts
  for each row execute function imgsrv_artifacts_frozen();

create or replace function imgsrv_attachments_frozen() returns trigger language plpgsql as $$
begin
  if tg_op <> 'INSERT' then
    perform imgsrv_refuse_frozen(version_id) from artifacts where id = old.artifact_id;
  end if;
  if tg_op <> 'DELETE' then
    perform imgsrv_refuse_frozen(version_id) from artifacts where id = new.artifact_id;
  end if;
  return case tg_op when 'DELETE' then old else new end;
end $$;
drop trigger if exists attachments_frozen on attachments;
create trigger attachments_frozen before insert or update or delete on attachments
  for each row execute function imgsrv_attachments_frozen();

-- An alias points at a published version of its own image.
create or replace function imgsrv_alias_target() returns trigger language plpgsql as $$
begin
  perform 1 from versions where id = new.version_id and image_id = new.image_id and state = 'published' for share;
  if not found then
    raise exception 'imgsrv: an alias points at a published version of its image';
  end if;
  return new;
end $$;
drop trigger if exists aliases_target on aliases;
create trigger aliases_target before insert or update on aliases
  for each row execute function imgsrv_alias_target();

-- The bytes that a published version cites are not collected.
create or replace function imgsrv_refuse_cited() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' then
    if new.state <> 'deleting' and new.digest = old.digest and new.size = old.size then
      return new;
    end if;
  end if;
  if exists (
    select 1 from artifacts a join versions v on v.id = a.version_id
    where a.blob_digest = old.digest and v.state = 'published'
  ) or exists (
    select 1 from attachments t join artifacts a on a.id = t.artifact_id join versions v on v.id = a.version_id
    where t.blob_digest = old.digest and v.state = 'published'
  ) then
    raise exception 'imgsrv: a published version cites the blob';
  end if;
  return case tg_op when 'DELETE' then old else new end;
end $$;
drop trigger if exists blobs_cited on blobs;
create trigger blobs_cited before update or delete on blobs
  for each row execute function imgsrv_refuse_cited();

-- TRUNCATE passes triggers for each row, also where CASCADE takes a table along.
create or replace function imgsrv_refuse_truncate() returns trigger language plpgsql as $$
begin
  if exists (select 1 from versions where state <> 'draft') then
    raise exception 'imgsrv: a version is published or frozen, so % cannot be truncated', tg_table_name;
  end if;
  return null;
end $$;
drop trigger if exists versions_truncate on versions;
create trigger versions_truncate before truncate on versions
  for each statement execute function imgsrv_refuse_truncate();
drop trigger if exists artifacts_truncate on artifacts;
create trigger artifacts_truncate before truncate on artifacts
  for each statement execute function imgsrv_refuse_truncate();
drop trigger if exists attachments_truncate on attachments;
create trigger attachments_truncate before truncate on attachments
  for each statement execute function imgsrv_refuse_truncate();
drop trigger if exists blobs_truncate on blobs;
create trigger blobs_truncate before truncate on blobs
  for each statement execute function imgsrv_refuse_truncate();
