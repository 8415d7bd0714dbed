-- What can be done with a posttrain job: suspend or resume it until it has ended, and try a failed one again.
local actions = {}

local finished, failed = false, false
if obj.status ~= nil then
  for _, condition in ipairs(obj.status.conditions or {}) do
    if condition.status == "True" and (condition.type == "Succeeded" or condition.type == "Failed") then
      finished = true
      failed = condition.type == "Failed"
    end
  end
end

if failed then
  actions["retry"] = {
    ["displayName"] = "Retry as a new object",
    ["iconClass"] = "fa fa-fw fa-redo"
  }
elseif not finished then
  if obj.spec.run ~= nil and obj.spec.run.suspend then
    actions["resume"] = {["iconClass"] = "fa fa-fw fa-play"}
  else
    actions["suspend"] = {["iconClass"] = "fa fa-fw fa-pause"}
  end
end

return actions
