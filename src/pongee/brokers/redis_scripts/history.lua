-- Reads what a channel's stream keeps, and keeps its position for longer.
--
-- KEYS: the stream; its meta.
-- ARGV: publications kept; milliseconds they are kept; milliseconds the meta is kept; the same where
--       nothing was ever published; a name for a new epoch; the offset to begin after, or ""; how
--       many, or ""; "1" for the newest first.
-- Returns the epoch, the top, and entries of the stream.
local stream, meta = KEYS[1], KEYS[2]
local ttl = tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local known = redis.call('HMGET', meta, 'epoch', 'top')
local epoch, top = known[1], known[2] or '0'
if not epoch then
  epoch, top = ARGV[5], '0'
  redis.call('DEL', stream) -- of an epoch that nobody remembers
  redis.call('HSET', meta, 'epoch', epoch, 'top', top)
end
-- Names of channels come from clients: those only looked at must not stay for long.
redis.call('PEXPIRE', meta, top == '0' and ARGV[4] or ARGV[3])
if ARGV[7] == '0' then
  return {epoch, top, {}}
end

-- The oldest that is young enough, and the oldest of the `size` newest.
local oldest
local last, step = '-', 1
repeat
  local page = redis.call('XRANGE', stream, last, '+', 'COUNT', step)
  local full = #page == step
  step = 50
  for _, entry in ipairs(page) do
    last = '(' .. entry[1]
    if tonumber(entry[2][2]) > now - ttl then
      oldest = tonumber(string.match(entry[1], '^%d+'))
      break
    end
  end
until oldest or not full
if not oldest then
  redis.call('DEL', stream)
  return {epoch, top, {}}
end
local size = tonumber(ARGV[1])
if oldest <= tonumber(top) - size then
  oldest = tonumber(top) - size + 1
end
redis.call('XTRIM', stream, 'MINID', string.format('%.0f', oldest))

local count = ARGV[7] ~= '' and {'COUNT', ARGV[7]} or {}
local since = tonumber(ARGV[6])
if ARGV[8] ~= '1' then
  local from = since and '(' .. ARGV[6] .. '-0' or '-'
  return {epoch, top, redis.call('XRANGE', stream, from, '+', unpack(count))}
end
if not since then
  return {epoch, top, redis.call('XREVRANGE', stream, '+', '-', unpack(count))}
end
if since < 1 then
  return {epoch, top, {}}
end
local from = string.format('%.0f-0', since - 1)
local page = redis.call('XREVRANGE', stream, from, '-', unpack(count))
if page[1] and page[1][1] ~= from then
  page = {} -- the first one that was asked for is gone, or never was
end
return {epoch, top, page}
