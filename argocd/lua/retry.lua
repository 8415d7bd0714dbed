-- A job that has ended stays ended, and what it should do cannot change: to try again is to create another object. It has the
-- same specification and begins anew. Its name is made from the version of the failed one, which changes no more, so that
-- trying twice makes one. Labels and annotations stay behind: by some of them Argo CD would take the copy for a part of the
-- application, and prune it.
local LONGEST = 63

local name = obj.metadata.name .. "-retry-" .. obj.metadata.resourceVersion
if #name > LONGEST then
  error(name .. " is longer than the " .. LONGEST .. " characters of a name; create the new object by hand")
end

local retried = {}
retried.apiVersion = obj.apiVersion
retried.kind = obj.kind
retried.metadata = {
  name = name,
  namespace = obj.metadata.namespace,
  annotations = {["posttrain.dev/retry-of"] = obj.metadata.name}
}
retried.spec = {}
for key, value in pairs(obj.spec) do
  -- An empty table could be a list or a mapping. Of `run` nothing is lost; elsewhere the API server refuses a wrong guess.
  if key ~= "run" or next(value) ~= nil then
    retried.spec[key] = value
  end
end

return {{operation = "create", resource = retried}}
