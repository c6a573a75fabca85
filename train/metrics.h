// Every metric, by idea.
#pragma once

#include "train/metrics/classification.h"
#include "train/metrics/code_use.h"
#include "train/metrics/distances.h"
#include "train/metrics/resolution.h"
#include "train/metrics/statistics.h"
