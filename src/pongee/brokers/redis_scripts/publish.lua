-- Appends a publication to a channel's stream and hands it over, in one step.
--
-- KEYS: the stream; its meta (epoch, top, and when something is first too old); optionally what an
--       idempotency key is remembered under.
-- ARGV: PUBLISH or SPUBLISH; the subject; the publication, finished; publications kept; milliseconds
--       they are kept; milliseconds the meta is kept; a name for a new epoch; milliseconds that the
--       idempotency key is remembered.
-- Returns "offset:epoch", of the first publication if this is a repetition.
--
-- Numbers are exact up to 2^53: "%.0f", since tostring rounds from 10^14 on.
local stream, meta, once = KEYS[1], KEYS[2], KEYS[3]
local ttl, meta_ttl = tonumber(ARGV[5]), tonumber(ARGV[6])

if once then
  local known = redis.call('GET', once)
  if known then
    return known
  end
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', meta, 'epoch', 'due')
local epoch, due = known[1], tonumber(known[2])
if not epoch then
  epoch = ARGV[7]
  redis.call('DEL', stream) -- of an epoch that nobody remembers
  redis.call('HSET', meta, 'epoch', epoch)
end
local top = string.format('%.0f', redis.call('HINCRBY', meta, 'top', 1))

-- The oldest are looked at only when one of them can be too old.
if not due or now >= due then
  local keep
  local last = '-'
  repeat
    local page = redis.call('XRANGE', stream, last, '+', 'COUNT', 50)
    for _, entry in ipairs(page) do
      last = '(' .. entry[1]
      if tonumber(entry[2][2]) > now - ttl then
        keep = entry
        break
      end
    end
  until keep or #page < 50
  if keep then
    redis.call('XTRIM', stream, 'MINID', keep[1])
    due = tonumber(keep[2][2]) + ttl
  else
    redis.call('DEL', stream)
    due = now + ttl
  end
  redis.call('HSET', meta, 'due', string.format('%.0f', due))
elseif due > now + ttl then
  redis.call('HSET', meta, 'due', string.format('%.0f', now + ttl)) -- kept for less from now on
end

redis.call('XADD', stream, 'MAXLEN', '=', ARGV[4], top .. '-0',
  't', string.format('%.0f', now), 'p', ARGV[3])
redis.call('PEXPIRE', stream, ARGV[5])
redis.call('PEXPIRE', meta, ARGV[6])
local position = top .. ':' .. epoch
if once then
  redis.call('SET', once, position, 'PX', ARGV[8])
end
redis.call(ARGV[1], ARGV[2], 'p' .. position .. ':' .. ARGV[3])
return position
