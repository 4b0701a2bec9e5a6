-- Who is in a channel, by leases. Every step first strikes out those whose lease has ended.
--
-- KEYS: connections with when their leases end; what is known of each connection; how many
--       connections each user has.
-- ARGV: the step, one of
--       "add", connection, milliseconds, user, what is known of it;
--       "remove", connection;
--       "read": returns what is known of each;
--       "count": returns the numbers of connections and of users.
-- What is known is kept as "<bytes of the user>:<user><what the process has written>".
local leases, known, users = KEYS[1], KEYS[2], KEYS[3]
local step, client = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function strike(one)
  local entry = redis.call('HGET', known, one)
  redis.call('ZREM', leases, one)
  if entry then
    redis.call('HDEL', known, one)
    local length, rest = string.match(entry, '^(%d+):()')
    local user = string.sub(entry, rest, rest + tonumber(length) - 1)
    if redis.call('HINCRBY', users, user, -1) <= 0 then
      redis.call('HDEL', users, user)
    end
  end
end

for _, one in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', string.format('%.0f', now))) do
  strike(one)
end

if step == 'add' then
  strike(client)
  redis.call('ZADD', leases, string.format('%.0f', now + tonumber(ARGV[3])), client)
  redis.call('HSET', known, client, string.len(ARGV[4]) .. ':' .. ARGV[4] .. ARGV[5])
  redis.call('HINCRBY', users, ARGV[4], 1)
  local last = redis.call('ZREVRANGE', leases, 0, 0, 'WITHSCORES')[2]
  for _, key in ipairs(KEYS) do
    redis.call('PEXPIREAT', key, string.format('%.0f', tonumber(last)))
  end
elseif step == 'remove' then
  strike(client)
elseif step == 'read' then
  return redis.call('HVALS', known)
else
  return {redis.call('ZCARD', leases), redis.call('HLEN', users)}
end
return 0
