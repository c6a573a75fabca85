// Every metric, by idea.
#pragma once

#include "train/classification.h"
#include "train/code_use.h"
#include "train/distances.h"
#include "train/resolution.h"
#include "train/statistics.h"
